"""The cluster with the release in it, and what stories do to it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e import release
from e2e.kubectl import Kubectl, Object, eventually
from e2e.models import Model, example
from e2e.release import Helm

NAMESPACE: Final = "llm-e2e"
MODEL: Final = "story"  # not the name of the demo, which may still be running
# One replica, so that each story starts alike, however busy the machine is; those about replicas
# ask for more. They do not wait for what people would want to wait for.
ALONE: Final = {
    "minReplicas": 1,
    "maxReplicas": 1,
    "scaleDown": {"stabilization": "15s", "maxStep": 3},
}


@dataclass(frozen=True)
class World:
    """The cluster with the release in it.

    values    what the release was installed with
    embedded  whether the cluster runs on this machine, so that its processes can be killed
    """

    kubectl: Kubectl
    helm: Helm
    values: dict[str, str]
    gateway_url: str
    embedded: bool
    namespace: str = NAMESPACE

    def apply_example(self, name: str, **spec: Any) -> Model:
        """Make the example's LLMDeployment anew under a name, with parts of its spec replaced."""
        wanted = example()
        wanted["metadata"]["name"] = name
        wanted["spec"]["scaling"] = ALONE
        wanted["spec"] |= spec
        model = Model(self.kubectl, self.namespace, name)
        self.kubectl.replace(wanted, self.namespace)
        return model

    def delete(self, model: Model) -> None:
        """Delete an LLMDeployment and wait until its pods are gone."""
        self.kubectl("delete", "llmd", model.name, "-n", model.namespace, "--ignore-not-found")
        eventually("the pods are gone", lambda: not model.pods(), timeout_s=60)

    def operator_pods(self) -> list[Object]:
        """Return the operator's pods."""
        selector = "app.kubernetes.io/component=operator"
        return self.kubectl.list("pods", release.NAMESPACE, selector)

    def scale_operator(self, replicas: int) -> None:
        """Set the operator's replicas and wait until it is so."""
        self.kubectl(
            "scale", "deployment", release.OPERATOR, "-n", release.NAMESPACE,
            f"--replicas={replicas}",
        )  # fmt: skip
        eventually(
            f"{replicas} operators", lambda: len(self.operator_pods()) == replicas, timeout_s=60
        )
        if replicas:
            self._operator_is_ready()

    def kill_operator(self, while_it: Callable[[], None]) -> None:
        """SIGKILL the operator half a second after it was given work; wait for the next one."""
        [pod] = self.operator_pods()
        while_it()
        time.sleep(0.5)
        self.kill(pod)
        eventually(
            "the operator was restarted", lambda: self.operator_pods() != [pod], timeout_s=30
        )
        self._operator_is_ready()

    def kill(self, pod: Object) -> None:
        """SIGKILL a pod's container, or force the pod away where its processes are not ours."""
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if not self.embedded:
            self.kubectl("delete", "pod", name, "-n", namespace, "--force", "--grace-period=0")
            return
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        killed = [pid for pid in _processes_of(container) if _kill(pid)]
        assert killed, f"no process of {name} is found"

    def _operator_is_ready(self) -> None:
        self.kubectl(
            "rollout", "status", f"deployment/{release.OPERATOR}", "-n", release.NAMESPACE,
            "--timeout=90s", timeout_s=100,
        )  # fmt: skip


def _processes_of(container: str) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if container in (folder / "cgroup").read_text():
                yield int(folder.name)
        except OSError:  # it has ended meanwhile
            continue


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
