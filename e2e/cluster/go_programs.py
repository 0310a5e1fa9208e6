"""Kubernetes, helm, CoreDNS and pause: built from source once, kept by the key of their inputs."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.inputs import key
from e2e.cluster.places import GO_MODULES, Places
from e2e.cluster.prerequisites import require_go
from e2e.cluster.progress import run_long, say, step

KUBERNETES, HELM, COREDNS, PAUSE = MODULES = ("kubernetes", "helm", "coredns", "pause")
FLAGS = ("-trimpath", "-buildvcs=false")


def built(places: Places, module: str) -> Path:
    """Return the folder of a module's programs, building them first where that is not done yet."""
    folder = _folder(places, module)
    if not folder.is_dir():
        with locked(places.cache / "build.lock"):
            if not folder.is_dir():
                _build(module, folder, places.cache / "logs" / f"build-{module}.log")
    return folder


def is_built(places: Places, module: str) -> Path | None:
    """Return the folder of a module's programs where they are built, else None."""
    folder = _folder(places, module)
    return folder if folder.is_dir() else None


def _folder(places: Places, module: str) -> Path:
    source = GO_MODULES / module
    return places.cache / "bin" / f"{module}-{key(source, ['.'], [*FLAGS, _link_flags(source)])}"


def _build(module: str, folder: Path, log: Path) -> None:
    source = GO_MODULES / module
    go = require_go()
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    what = "tool" if "\ntool " in (source / "go.mod").read_text() else "."
    with step(f"Building {module} (minutes the first time; log: {log})"):
        options = ["-v", *FLAGS, "-ldflags", _link_flags(source), "-o", f"{unfinished}/"]
        static = os.environ | {"CGO_ENABLED": "0"}
        run_long([go, "build", *options, what], log, cwd=source, env=static)
    unfinished.rename(folder)


def _link_flags(source: Path) -> str:
    """Return the linker flags that drop symbols and set the versions a release would carry."""
    go_mod = (source / "go.mod").read_text()
    stamps: dict[str, str] = {}
    if found := re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.(\d+)", go_mod):
        # Without these, clients cannot parse what /version answers.
        stamps = {
            "k8s.io/component-base/version.gitVersion": f"v{found[1]}.{found[2]}.{found[3]}",
            "k8s.io/component-base/version.gitMajor": found[1],
            "k8s.io/component-base/version.gitMinor": found[2],
        }
    elif found := re.search(r"helm\.sh/helm/v3 (v\S+)", go_mod):
        stamps = {"helm.sh/helm/v3/internal/version.version": found[1]}
        if kubernetes := re.search(r"k8s\.io/client-go v0\.(\d+)", go_mod):
            for package in ("pkg/chartutil", "pkg/lint/rules"):
                stamps[f"helm.sh/helm/v3/{package}.k8sVersionMajor"] = "1"
                stamps[f"helm.sh/helm/v3/{package}.k8sVersionMinor"] = kubernetes[1]
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two runs never build or start the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another run that holds {path} ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
