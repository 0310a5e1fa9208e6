"""Installs the chart, as a person does: with helm."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.cluster.progress import run
from e2e.kubectl import Kubectl

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "llm-operator"
NAME: Final = "llm-operator"
NAMESPACE: Final = "llm-operator-system"
GATEWAY: Final = f"{NAME}-gateway"
OPERATOR: Final = f"{NAME}-operator"


@dataclass(frozen=True)
class Helm:
    """One helm program and the cluster that it speaks to."""

    program: Path
    kubeconfig: Path
    context: str | None = None

    def __call__(self, *words: str | Path, timeout_s: float = 60) -> str:
        """Run helm; raise CannotContinue with its complaint when it fails."""
        where = ["--kubeconfig", str(self.kubeconfig)]
        where += ["--kube-context", self.context] if self.context else []
        return run([self.program, *words, *where], timeout_s=timeout_s)


def image_values(control: str, engine: str) -> dict[str, str]:
    """Return the chart's values for two images given as repository:tag."""
    values: dict[str, str] = {}
    for key, image in (("image", control), ("engine.image", engine)):
        repository, _, tag = image.rpartition(":")
        values |= {f"{key}.repository": repository, f"{key}.tag": tag}
    return values


def install(helm: Helm, values: Mapping[str, str]) -> None:
    """Install or upgrade the release, and wait until operator and gateways are ready."""
    flags = [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]
    helm(
        "upgrade", NAME, CHART, "--install", "--namespace", NAMESPACE, "--create-namespace",
        "--wait", "--timeout", "3m", *flags, timeout_s=200,
    )  # fmt: skip


@contextmanager
def gateway(kubectl: Kubectl, *, reachable: bool) -> Iterator[str]:
    """Yield a URL of the gateway.

    reachable  whether cluster addresses can be reached from here; otherwise a port is forwarded,
               which ends at one gateway only
    """
    if not reachable:
        with kubectl.forwarded(GATEWAY, NAMESPACE, 80) as url:
            yield url
        return
    service = kubectl.get("service", GATEWAY, NAMESPACE)
    assert service is not None, "the release has no gateway Service"
    yield f"http://{service['spec']['clusterIP']}"
