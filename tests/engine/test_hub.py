"""Models from a hub, against a small one on loopback that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_engine.contract.inspection import FailureReason, Inspection, ModelRefused
from llm_engine.weights.hub import HubModel, choose_files, parse_hub_uri
from tests.engine.tiny_gguf import save_gguf
from tests.engine.tiny_llama import reference_model

COMMIT = "a" * 40
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
    assert parse_hub_uri(uri) == model


@pytest.mark.parametrize("uri", ["hf://", "hf://name", "hf:///x", "hf://org/", "hf://o/n/file.bin"])
def test_uris_that_name_no_model(uri: str) -> None:
    with pytest.raises(ModelRefused, match="names no model"):
        parse_hub_uri(uri)


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


class Hub(ThreadingHTTPServer):
    """Serves the folders below `root` as models of the owner `org`."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.sent_bytes = 0
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        if "org" in path:  # what the client asks beside models is its own affair
            self.server.tokens.add(self.headers.get("Authorization"))
        if path[:2] == ["api", "models"]:
            self.model(path[3], path[4:])
        elif path[0] == "org" and path[2] == "resolve":
            self.file(self.server.root / path[1] / "/".join(path[4:]))
        else:
            self.error(404, "RepoNotFound")

    def model(self, name: str, rest: list[str]) -> None:
        folder = self.server.root / name
        if name == "gated":
            return self.error(403, "GatedRepo")
        if not folder.is_dir():
            return self.error(404, "RepoNotFound")
        if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            return self.error(404, "RevisionNotFound")
        files = [p for p in folder.rglob("*") if p.is_file()]
        listing = [
            {"rfilename": str(p.relative_to(folder)), "size": p.stat().st_size, "path":
             str(p.relative_to(folder)), "type": "file", "oid": "0"} for p in files
        ]  # fmt: skip
        if rest[:1] == ["tree"]:
            return self.answer(200, json.dumps(listing).encode())
        body = {"id": f"org/{name}", "sha": COMMIT, "siblings": listing}
        return self.answer(200, json.dumps(body).encode())

    def file(self, path: Path) -> None:
        if not path.is_file():
            return self.error(404, "EntryNotFound")
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        wanted = self.headers.get("Range")
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last or len(content)) + 1]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        return self.answer(206 if wanted else 200, content, headers)

    def error(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.server.sent_bytes += len(body)


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
        file.truncate(64 << 20)  # 64 MiB, of which only the header is to be fetched
    server = Hub(root)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def in_a_process(code: str, hub_url: str, home: Path) -> str:
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
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90,
        check=False,
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
    assert report.file_bytes == 64 << 20
    assert hub.sent_bytes < 2 << 20
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_a_model_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    code = (
        "from llm_engine.weights.source import resolve_source\n"
        "print(resolve_source('hf://org/tiny'))"
    )
    folder = Path(in_a_process(code, hub.url, tmp_path).strip())
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    hub.sent_bytes = 0
    assert in_a_process(code, hub.url, tmp_path).strip() == str(folder)
    assert hub.sent_bytes < 10_000


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
