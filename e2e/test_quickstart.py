"""Story: a stranger installs the chart, applies a model and talks to it."""

import json
import re
import shlex
import urllib.request
from typing import Any

import pytest

from e2e import release
from e2e.load import Client
from e2e.models import Model
from e2e.world import World

pytestmark = pytest.mark.timeout(240)


async def test_the_model_answers_a_chat(client: Client) -> None:
    answer = await client.ask("What is the capital of France?")
    assert answer.failure is None
    assert "Paris" in answer.text
    assert answer.tokens > 3


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_the_curl_of_the_notes_works_as_printed(world: World, model: Model) -> None:
    notes = world.helm("get", "notes", release.NAME, "-n", release.NAMESPACE)
    [curl] = re.findall(r"curl http.*?'\n", notes, re.DOTALL)
    words = shlex.split(curl)
    body = json.loads(words[words.index("-d") + 1])
    assert f"metadata: {{name: {body['model']}}}" in notes  # the model that the notes deploy
    with world.kubectl.forwarded(release.GATEWAY, release.NAMESPACE, 80) as url:
        path = words[1].removeprefix("http://localhost:8080")
        answer = post(f"{url}{path}", body | {"model": model.name})
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_the_model_is_listed(world: World, model: Model) -> None:
    with urllib.request.urlopen(f"{world.gateway_url}/v1/models", timeout=10) as response:
        assert model.name in [entry["id"] for entry in json.load(response)["data"]]


def test_helm_test_passes_and_shows_the_answer(world: World, model: Model) -> None:
    command = ("test", release.NAME, "-n", release.NAMESPACE, "--logs", "--timeout", "60s")
    output = world.helm(*command, timeout_s=70)
    assert f"{model.name}: " in output
    assert "Paris" in output


def test_kubectl_tells_at_a_glance(world: World, model: Model) -> None:
    table = world.kubectl("get", "llmd", "-n", model.namespace, "-o", "wide")
    header, row = table.splitlines()[:2]
    assert {"NAME", "READY", "REASON", "REPLICAS"} <= set(header.split())
    assert row.split()[:2] == [model.name, "True"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("wait llmd/story --for=condition=Ready --timeout=30s", id="wait"),
        pytest.param("explain llmd.spec.targets.timePerOutputToken", id="explain"),
        pytest.param("get accel cpu", id="accelerator classes"),
        pytest.param("describe llmd story", id="describe"),
        pytest.param("get all", id="get all"),
    ],
)
def test_kubectl_fits(world: World, model: Model, words: str) -> None:
    assert model.seen()
    verb, *rest = words.split()
    world.kubectl(verb, "-n", model.namespace, *rest)


def test_every_pod_runs_where_restricted_is_enforced(world: World, model: Model) -> None:
    enforced = "pod-security.kubernetes.io/enforce"
    for namespace in (release.NAMESPACE, model.namespace):
        found = world.kubectl.get("namespace", namespace)
        assert found is not None
        assert found["metadata"]["labels"][enforced] == "restricted"
        assert world.kubectl.list("pods", namespace)


def test_kubectl_diff_of_what_is_there_is_empty(world: World, model: Model) -> None:
    seen = model.seen()
    assert seen is not None
    del seen["status"]
    manifest = json.dumps(seen)
    assert world.kubectl("diff", "--server-side", "-f", "-", input_text=manifest) == ""
