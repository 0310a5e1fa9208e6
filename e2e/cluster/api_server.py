"""A real API server with etcd and nothing else, for tests: no root, no kubelet, seconds."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import certificates, processes
from e2e.cluster.control_plane import AUDIT_POLICY, SERVER_NAMES, SERVICE_ADDRESS, ControlPlane
from e2e.cluster.go_programs import KUBERNETES, built
from e2e.cluster.node import as_file
from e2e.cluster.places import here
from e2e.cluster.prerequisites import API_SERVER_PACKAGES, install, program, require_linux
from e2e.cluster.readiness import wait_for_api


@dataclass(frozen=True)
class ApiServer:
    """A running API server; `kubeconfig` is its administrator's."""

    url: str
    kubeconfig: Path
    kubectl: Path
    audit_log: Path


@contextmanager
def running(*, controllers: bool = False) -> Iterator[ApiServer]:
    """Start etcd and an API server on free loopback ports, and end them when the block ends.

    With `controllers` the controller manager runs too: garbage collection, Deployments, namespaces
    that end. Everything lies in a temporary folder and dies with this process, however it ends.
    """
    require_linux()
    install(API_SERVER_PACKAGES)
    programs = built(here(), KUBERNETES)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-operator-api-")))
        etcd_port, peer_port, api_port = _free_ports(3)
        plane = ControlPlane(
            programs=programs, etcd=program("etcd"), folder=folder, address="127.0.0.1",
            port=api_port, etcd_port=etcd_port, etcd_peer_port=peer_port,
        )  # fmt: skip
        _write_files(plane)
        commands = {"etcd": plane.etcd_command(), "kube-apiserver": plane.api_server_command()}
        records = folder / "processes"
        stack.callback(lambda: processes.stop(processes.recorded(records), grace_s=0))
        for name, command in commands.items():
            _start(records, name, command)
        wait_for_api(records, plane.url, plane.pki / "ca.crt", folder / "logs")
        if controllers:
            _start(records, "kube-controller-manager", plane.controller_manager_command())
        yield ApiServer(
            url=plane.url,
            kubeconfig=folder / "admin.kubeconfig",
            kubectl=programs / "kubectl",
            audit_log=folder / "logs" / "audit.log",
        )


def _write_files(plane: ControlPlane) -> None:
    certificates.make(plane.pki, ["127.0.0.1", SERVICE_ADDRESS], SERVER_NAMES)
    tokens = certificates.make_tokens(plane.pki / "tokens.csv", "no-node")
    authority = (plane.pki / "ca.crt").read_bytes()
    for name, user in (
        ("admin", "admin"),
        ("controller-manager", "system:kube-controller-manager"),
    ):
        config = as_file(plane.kubeconfig(user, tokens[user], authority))
        (plane.folder / f"{name}.kubeconfig").write_text(config)
    (plane.folder / "audit-policy.json").write_text(as_file(AUDIT_POLICY))


def _start(records: Path, name: str, command: list[str]) -> None:
    # The kernel ends it when we die, even by SIGKILL.
    with_us = [str(program("setpriv")), "--pdeathsig", "KILL", "--", *command]
    processes.start(records, name, with_us, records.parent / "logs" / f"{name}.log")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
