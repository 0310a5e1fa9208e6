"""The gateway learns its models and replicas from a real API server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.api_server import ApiServer
from llm_operator.api.names import API_VERSION, DEPLOYMENT_LABEL
from llm_operator.gateway.fleet import Fleet
from llm_operator.gateway.learning import learn
from llm_operator.gateway.settings import Settings

pytestmark = pytest.mark.cluster

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gateway-test"}}


def an_llm_deployment(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"source": "pvc://models/tiny"}},
    }


def a_service(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {DEPLOYMENT_LABEL: name}},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8000}],
        },
    }


def a_pod(name: str, namespace: str, app: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"nodeName": "gateway-test", "containers": [{"name": "c", "image": "none"}]},
    }


def ready_at(address: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"status": {"podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}}


class Cluster:
    """kubectl in a namespace of its own."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def kubectl(self, *words: str, given: Any = None) -> str:
        command = [str(self.api.kubectl), "--kubeconfig", str(self.api.kubeconfig), *words]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe
        )
        text = b"" if given is None else json.dumps(given).encode()
        out, err = await asyncio.wait_for(process.communicate(text), 30)
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def apply(self, obj: dict[str, Any]) -> None:
        await self.kubectl("apply", "--server-side", "-f", "-", given=obj)

    async def delete(self, kind: str, name: str, *words: str) -> None:
        await self.kubectl("delete", kind, name, "-n", self.namespace, *words)

    async def run_pod(self, name: str, app: str, address: str) -> None:
        """Play the kubelet: a pod that is ready at an address."""
        await self.apply(a_pod(name, self.namespace, app))
        status = json.dumps(ready_at(address))
        patch = ("patch", "pod", name, "-n", self.namespace, "--subresource=status", "-p", status)
        await self.kubectl(*patch)


@asynccontextmanager
async def a_cluster(api: ApiServer, namespace: str) -> AsyncIterator[Cluster]:
    cluster = Cluster(api, namespace)
    await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await cluster.apply(NODE)
    # Pods are refused until the controller has made the namespace's account.
    await cluster.kubectl("wait", "--for=create", "sa/default", "-n", namespace, "--timeout=20s")
    try:
        yield cluster
    finally:
        await cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@asynccontextmanager
async def a_learning_fleet(kubeconfig: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(Settings(), time.monotonic)
    learning = asyncio.create_task(learn(fleet, kubeconfig))
    try:
        await until(lambda: fleet.known)
        yield fleet
    finally:
        learning.cancel()
        with suppress(asyncio.CancelledError):
            await learning


async def until(holds: Callable[[], object], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        await asyncio.sleep(0.02)


def replicas(fleet: Fleet, model: str) -> set[str]:
    return set(fleet.models[model].replicas) if model in fleet.models else set()


async def test_a_model_from_its_creation_to_its_end(custom_resources: ApiServer) -> None:
    api = custom_resources
    async with a_cluster(api, "gateway-a") as cluster, a_learning_fleet(api.kubeconfig) as fleet:
        await cluster.apply(an_llm_deployment("tiny-a", "gateway-a"))
        await until(lambda: "tiny-a" in fleet.models)
        assert replicas(fleet, "tiny-a") == set()
        assert fleet.models["tiny-a"].created_s > 0

        await cluster.apply(a_service("tiny-a", "gateway-a"))
        await cluster.run_pod("one", "tiny-a", "10.1.2.3")
        await cluster.run_pod("two", "tiny-a", "10.1.2.4")
        both = {"http://10.1.2.3:8000", "http://10.1.2.4:8000"}
        await until(lambda: replicas(fleet, "tiny-a") == both)

        await cluster.delete("pod", "one", "--wait=false")  # no kubelet: it stays, terminating
        await until(lambda: replicas(fleet, "tiny-a") == {"http://10.1.2.4:8000"})
        await cluster.delete("pod", "two", "--grace-period=0", "--force")
        await until(lambda: replicas(fleet, "tiny-a") == set())
        assert "tiny-a" in fleet.models, "without replicas it still is a model"

        await cluster.delete("llmdeployment", "tiny-a")
        await until(lambda: "tiny-a" not in fleet.models)


async def test_what_is_known_stays_while_the_api_server_is_away(
    custom_resources: ApiServer, tmp_path: Path
) -> None:
    api = custom_resources
    async with (
        a_cluster(api, "gateway-b") as cluster,
        a_door(api, tmp_path) as door,
        a_learning_fleet(door.kubeconfig) as fleet,
    ):
        await cluster.apply(an_llm_deployment("tiny-b", "gateway-b"))
        await cluster.apply(a_service("tiny-b", "gateway-b"))
        await cluster.run_pod("one", "tiny-b", "10.1.2.5")
        await until(lambda: replicas(fleet, "tiny-b") == {"http://10.1.2.5:8000"})

        door.close()
        await cluster.apply(an_llm_deployment("meanwhile", "gateway-b"))
        await cluster.delete("pod", "one", "--grace-period=0", "--force")
        await asyncio.sleep(1.0)
        assert replicas(fleet, "tiny-b") == {"http://10.1.2.5:8000"}
        assert "meanwhile" not in fleet.models

        door.open()
        await until(lambda: replicas(fleet, "tiny-b") == set())
        await until(lambda: "meanwhile" in fleet.models)
        assert "tiny-b" in fleet.models


class Door:
    """A TCP relay in front of the API server that can be shut."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_open = True
        self.kubeconfig = Path()
        self.writers: set[asyncio.StreamWriter] = set()

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False
        for writer in list(self.writers):
            writer.transport.abort()

    async def pass_through(self, reader: Any, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers |= {writer, far_writer}
        with suppress(ConnectionError):
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        self.writers -= {writer, far_writer}


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def a_door(api: ApiServer, folder: Path) -> AsyncIterator[Door]:
    door = Door(int(api.url.rsplit(":", 1)[1]))
    server = await asyncio.start_server(door.pass_through, "127.0.0.1", 0)
    config = yaml.safe_load(api.kubeconfig.read_text())
    port = server.sockets[0].getsockname()[1]
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    door.kubeconfig = folder / "through-the-door"
    door.kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield door
    finally:
        server.close()
        door.close()
