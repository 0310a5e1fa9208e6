"""Models from a hub, against a small one on loopback that speaks the hub's protocol."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_engine.contract.inspection import FailureReason, Inspection, ModelRefused
from llm_engine.weights.hub import HubModel
from llm_engine.weights.remote import choose_files
from tests.engine.small_hub import Hub
from tests.engine.tiny_gguf import save_gguf
from tests.engine.tiny_llama import reference_model

TOKEN = "hf_a_token_for_tests"


@pytest.mark.parametrize(
    ("uri", "model"),
    [
        ("hf://org/name", HubModel("org/name")),
        ("hf://org/name@main", HubModel("org/name", "main")),
        ("hf://org/name@refs%2Fpr%2F1", HubModel("org/name", "refs/pr/1")),
        ("hf://org/name/q4.gguf", HubModel("org/name", None, "q4.gguf")),
        ("hf://org/name@v1/deep/q4.gguf", HubModel("org/name", "v1", "deep/q4.gguf")),
    ],
)
def test_uris(uri: str, model: HubModel) -> None:
    assert HubModel.parse(uri) == model


@pytest.mark.parametrize("uri", ["hf://", "hf://name", "hf:///x", "hf://org/", "hf://o/n/file.bin"])
def test_uris_that_name_no_model(uri: str) -> None:
    with pytest.raises(ModelRefused, match="names no model"):
        HubModel.parse(uri)


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        pytest.param(
            [
                "README.md",
                "config.json",
                "model.safetensors",
                "pytorch_model.bin",
                "tokenizer.json",
            ],
            ["config.json", "tokenizer.json", "model.safetensors"],
            id="one file of safetensors",
        ),
        pytest.param(
            ["config.json", "model.safetensors.index.json", *SHARDS, "model.fp16.safetensors"],
            ["config.json", "model.safetensors.index.json", *SHARDS],
            id="shards",
        ),
        pytest.param(["README.md", "q8.gguf"], ["q8.gguf"], id="one gguf"),
    ],
)
def test_only_what_serving_needs_is_fetched(present: list[str], chosen: list[str]) -> None:
    assert choose_files(HubModel("o/n"), present) == chosen


@pytest.mark.parametrize(
    ("model", "present", "words"),
    [
        (HubModel("o/n"), ["a.gguf", "b.gguf"], "several .gguf.*a.gguf, b.gguf"),
        (HubModel("o/n"), ["pytorch_model.bin", "config.json"], "neither model.safetensors"),
        (HubModel("o/n", file="c.gguf"), ["a.gguf"], "has no file c.gguf"),
    ],
)
def test_what_cannot_be_chosen_is_said(model: HubModel, present: list[str], words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        choose_files(model, present)


@pytest.fixture(scope="module")
def hub(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    (root / "tiny").symlink_to(tiny_llama)
    (root / "gguf").mkdir()
    save_gguf(reference_model(), root / "gguf" / "tiny.gguf")
    (root / "large").mkdir()
    for name in ("config.json", "model.safetensors"):
        (root / "large" / name).write_bytes((tiny_llama / name).read_bytes())
    with (root / "large" / "model.safetensors").open("r+b") as file:
        file.truncate(24 << 20)  # 24 MiB, of which only the header is to be fetched
    server = Hub(root)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def in_a_process(code: str, hub_url: str, home: Path, *arguments: str) -> str:
    """Run code where huggingface_hub has not read its environment yet; return what it prints."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(__file__).parents[2] / "serving_image"),
    }
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def inspected(model: str, hub_url: str, home: Path) -> Inspection:
    code = (
        "from llm_engine.weights.inspection import inspect\n"
        f"print(inspect({model!r}).model_dump_json())"
    )
    return Inspection.model_validate_json(in_a_process(code, hub_url, home))


@pytest.mark.parametrize("name", ["tiny", "tiny@main", "gguf", "gguf/tiny.gguf"])
def test_a_model_on_a_hub_is_inspected_as_if_it_were_here(
    hub: Hub, tmp_path: Path, name: str
) -> None:
    report = inspected(f"hf://org/{name}", hub.url, tmp_path)
    assert report.failure is None
    assert report.shape is not None
    assert report.shape.parameters == sum(p.numel() for p in reference_model().parameters())


def test_inspection_fetches_headers_and_not_weights(hub: Hub, tmp_path: Path) -> None:
    hub.sent_bytes, hub.tokens = 0, set()
    report = inspected("hf://org/large", hub.url, tmp_path)
    assert report.failure is None
    assert report.file_bytes == 24 << 20
    assert hub.sent_bytes < 2 << 20
    assert hub.tokens == {f"Bearer {TOKEN}"}


FETCH = """
import sys
from llm_engine.contract.inspection import ModelRefused
from llm_engine.weights.source import resolve_source
told = []
try:
    print(resolve_source(sys.argv[1], lambda progress: told.append(progress.percent)))
except ModelRefused as refusal:
    print(f"{refusal.reason}: {refusal.message}")
print(*told)
"""


def fetched(model: str, hub_url: str, home: Path) -> tuple[str, list[int]]:
    """Return the folder, or why there is none, and the percentages told on the way."""
    answer, told = in_a_process(FETCH, hub_url, home, model).splitlines()
    return answer, [int(percent) for percent in told.split()]


def test_a_model_is_fetched_once_and_progress_is_told(hub: Hub, tmp_path: Path) -> None:
    folder, told = fetched("hf://org/tiny", hub.url, tmp_path)
    assert {path.name for path in Path(folder).iterdir()} >= {"config.json", "model.safetensors"}
    assert told == sorted(set(told))
    assert told[-1] == 100
    hub.sent_bytes = 0
    again, told = fetched("hf://org/tiny", hub.url, tmp_path)
    assert again == folder
    assert told[-1] == 100
    assert hub.sent_bytes < 10_000


def test_a_broken_download_goes_on_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.breaks, hub.ranges = {"model.safetensors": 15 << 20}, []
    folder, told = fetched("hf://org/large", hub.url, tmp_path)
    assert f"bytes={10 << 20}-" in hub.ranges  # huggingface_hub writes 10 MiB at a time
    weights = Path(folder) / "model.safetensors"
    assert weights.read_bytes() == (hub.root / "large" / "model.safetensors").read_bytes()
    assert told == sorted(set(told))
    assert told[-1] == 100


def test_content_that_is_not_what_was_promised_is_refused_and_not_kept(
    hub: Hub, tmp_path: Path
) -> None:
    hub.corrupt = {"model.safetensors"}
    said, _ = fetched("hf://org/tiny", hub.url, tmp_path)
    assert said.startswith("InvalidModel: ")
    assert "its source promises" in said
    hub.corrupt = set()
    folder, _ = fetched("hf://org/tiny", hub.url, tmp_path)
    weights = Path(folder) / "model.safetensors"
    assert weights.read_bytes() == (hub.root / "tiny" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        pytest.param(403, "GatedRepo", ["is gated", "accept its terms"], id="a gated model"),
        pytest.param(401, "", ["answers 401", "give a token"], id="a token that is not known"),
        pytest.param(403, "", ["answers 403", "give a token"], id="a token that may not"),
    ],
)
def test_files_that_may_not_be_read_are_access_denied(
    hub: Hub, tmp_path: Path, status: int, code: str, words: list[str]
) -> None:
    hub.locked = {"tiny": (status, code)}
    try:
        said, _ = fetched("hf://org/tiny", hub.url, tmp_path)
        failure = inspected("hf://org/tiny", hub.url, tmp_path).failure
    finally:
        hub.locked = {}
    assert said.startswith("AccessDenied: ")
    assert failure is not None
    assert failure.reason is FailureReason.ACCESS_DENIED
    assert all(word in said and word in failure.message for word in words), said


@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        ("hf://org/nothing", FailureReason.MODEL_NOT_FOUND, "does not exist, or is private"),
        ("hf://org/tiny@v9", FailureReason.MODEL_NOT_FOUND, "lacks this revision"),
        ("hf://org/gguf/no.gguf", FailureReason.MODEL_NOT_FOUND, "has no file no.gguf"),
        ("hf://org/gated", FailureReason.ACCESS_DENIED, "is gated"),
        ("hf://org/bad name", FailureReason.MODEL_NOT_FOUND, "no name of a model"),
    ],
)
def test_a_hub_that_says_no_is_quoted(
    hub: Hub, tmp_path: Path, model: str, reason: FailureReason, words: str
) -> None:
    report = inspected(model, hub.url, tmp_path)
    assert report.failure is not None
    assert report.failure.reason is reason
    assert words in report.failure.message


def test_a_hub_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    report = inspected("hf://org/tiny", "http://127.0.0.1:9", tmp_path)
    assert report.failure is not None
    assert report.failure.reason is FailureReason.SOURCE_UNREACHABLE
    assert "http://127.0.0.1:9" in report.failure.message


@pytest.mark.parametrize("what", ["inspected", "fetched"])
def test_a_hub_that_never_answers_is_unreachable(tmp_path: Path, what: str) -> None:
    code = f"""
from llm_engine.weights import hub, source
hub.ANSWER_WITHIN_S = 0.5
from llm_engine.weights.inspection import inspect
if {what == "inspected"}:
    print(inspect("hf://org/tiny").failure.reason)
else:
    try:
        source.resolve_source("hf://org/tiny")
    except Exception as error:
        print(error.reason)
"""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert in_a_process(code, url, tmp_path).strip() == "SourceUnreachable"
