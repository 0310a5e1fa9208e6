"""Which cluster the demo and the stories use: the embedded one, or a user's that was named.

CLUSTER=current uses the current kubectl context, and only when CONTEXT names that very context: a
demo must never end up in a cluster that someone merely happened to be pointing at.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import lifecycle, places
from e2e.cluster.go_programs import HELM, KUBERNETES, built
from e2e.cluster.image_load import load
from e2e.cluster.prerequisites import require_root
from e2e.cluster.progress import CannotContinue, run, say


@dataclass(frozen=True)
class Target:
    """A cluster and the programs to speak to it.

    context   the context to name in every command; None where the kubeconfig has only one
    images    references that the user gave; None where we build them
    """

    kubectl: Path
    helm: Path
    kubeconfig: Path
    context: str | None
    embedded: bool
    images: "Images | None" = None


@dataclass(frozen=True)
class Images:
    """References of both images, as the nodes know them."""

    control: str
    engine: str


def target(environ: Mapping[str, str]) -> Target:
    """Return the cluster that the environment asks for; starts and changes nothing in it.

    CLUSTER        "embedded" (the default) or "current"
    CONTEXT        with "current": the name of the current context
    CONTROL_IMAGE, ENGINE_IMAGE   with "current": images that its nodes can pull
    """
    wanted = environ.get("CLUSTER", "embedded")
    if wanted == "embedded":
        require_root()  # before minutes of building for nothing
        ours = places.here()
        kubectl, helm = built(ours, KUBERNETES) / "kubectl", built(ours, HELM) / "helm"
        return Target(kubectl, helm, ours.kubeconfig, context=None, embedded=True)
    if wanted == "current":
        return _current(environ)
    raise CannotContinue(f"CLUSTER is {wanted!r}: it may be 'embedded' or 'current'")


def _current(environ: Mapping[str, str]) -> Target:
    kubectl = _on_path("kubectl")
    try:
        current = run([kubectl, "config", "current-context"], env=environ).strip()
    except CannotContinue as error:
        raise CannotContinue("CLUSTER=current, but kubectl has no current context") from error
    named = environ.get("CONTEXT", "")
    if named != current:
        what = f"CONTEXT is {named!r}" if named else "CONTEXT is not set"
        raise CannotContinue(
            f"the current context is {current!r} and {what}: to let this change that cluster, say "
            f"so with CLUSTER=current CONTEXT={current}; nothing was touched"
        )
    file = Path(environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    control, engine = environ.get("CONTROL_IMAGE"), environ.get("ENGINE_IMAGE")
    images = Images(control, engine) if control and engine else None
    helm = _on_path("helm")
    return Target(kubectl, helm, file, context=current, embedded=False, images=images)


def _on_path(program: str) -> Path:
    found = shutil.which(program)
    if found is None:
        raise CannotContinue(f"CLUSTER=current needs {program} on PATH")
    return Path(found)


def bring_up(where: Target, *, fresh: bool = False) -> None:
    """Start the embedded cluster where it is not up; of another, only make sure that it answers."""
    if where.embedded:
        lifecycle.up(places.here(), fresh=fresh)
        return
    if fresh:
        raise CannotContinue("only the embedded cluster is ours to replace; unset CLUSTER")
    ask = [str(where.kubectl), "--kubeconfig", str(where.kubeconfig), "--context",
           str(where.context), "version", "--request-timeout=10s"]  # fmt: skip
    asked = subprocess.run(ask, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise CannotContinue(f"the cluster of {where.context!r} does not answer: {asked.stderr}")
    say(f"Using the cluster of context {where.context!r}.")


def images(where: Target) -> Images:
    """Return both images, built and loaded where the cluster is ours."""
    if where.images:
        return where.images
    if not where.embedded:
        raise CannotContinue(
            f"the nodes of {where.context!r} must be able to pull both images: build and push them "
            "(docker build -f operator/Dockerfile . and -f serving_image/Dockerfile .) "
            "and name them by CONTROL_IMAGE=... ENGINE_IMAGE=..."
        )
    references = load(places.here())
    return Images(references["control"], references["serving"])
