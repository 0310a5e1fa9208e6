"""Models in a bucket, against a small one on loopback that speaks S3's protocol."""

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights import bucket as bucket_module
from llm_engine.weights.bucket import BucketModel
from llm_engine.weights.inspection import inspect
from llm_engine.weights.source import resolve_source
from tests.engine.small_bucket import Bucket
from tests.engine.tiny_gguf import save_gguf
from tests.engine.tiny_llama import reference_model


@pytest.mark.parametrize(
    ("uri", "model"),
    [
        ("s3://models", BucketModel("models", "")),
        ("s3://models/tiny/", BucketModel("models", "tiny")),
        ("s3://models/a/b", BucketModel("models", "a/b")),
        ("s3://models/a/q4.gguf", BucketModel("models", "a", "q4.gguf")),
        ("s3://models/q4.gguf", BucketModel("models", "", "q4.gguf")),
    ],
)
def test_uris(uri: str, model: BucketModel) -> None:
    assert BucketModel.parse(uri) == model
    assert str(model) == uri.rstrip("/")


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://b//c", "s3://b/../c", "s3://b/./c"])
def test_uris_that_name_no_model(uri: str) -> None:
    with pytest.raises(ModelRefused, match="names no model"):
        BucketModel.parse(uri)


@pytest.fixture
def bucket(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    root = tmp_path / "bucket"
    shutil.copytree(tiny_llama, root / "tiny")
    (root / "gguf").mkdir()
    save_gguf(reference_model(), root / "gguf" / "tiny.gguf")
    server = Bucket(root)
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "nowhere-1",
        "AWS_ACCESS_KEY_ID": "a-key-for-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests",
        "LLM_ENGINE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(model: str) -> tuple[Path, list[int]]:
    """Return the folder or file, and the percentages told on the way."""
    told: list[int] = []
    path = resolve_source(model, lambda progress: told.append(progress.percent))
    return path, told


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("name", ["tiny", "tiny/", "gguf", "gguf/tiny.gguf"])
def test_a_model_in_a_bucket_is_inspected_as_if_it_were_here(name: str) -> None:
    report = inspect(f"s3://models/{name}")
    assert report.failure is None
    assert report.shape is not None
    assert report.shape.parameters == sum(p.numel() for p in reference_model().parameters())


def test_inspection_fetches_headers_and_not_weights(bucket: Bucket) -> None:
    with (bucket.root / "tiny" / "model.safetensors").open("r+b") as file:
        file.truncate(24 << 20)
    report = inspect("s3://models/tiny")
    assert report.failure is None
    assert report.file_bytes == 24 << 20
    assert bucket.sent_bytes < 2 << 20


def test_a_model_is_fetched_once_and_progress_is_told(bucket: Bucket, tmp_path: Path) -> None:
    folder, told = fetched("s3://models/tiny")
    assert folder == tmp_path / "cache" / "s3" / "models" / "tiny"
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (bucket.root / "tiny" / name).read_bytes()
    assert told == sorted(set(told))
    assert told[-1] == 100
    bucket.sent_bytes = 0
    assert fetched("s3://models/tiny")[0] == folder
    assert bucket.sent_bytes < 10_000


def test_a_file_that_changed_is_fetched_again(bucket: Bucket) -> None:
    folder, _ = fetched("s3://models/tiny")
    (bucket.root / "tiny" / "tokenizer_config.json").write_text('{"changed": true}')
    fetched("s3://models/tiny")
    assert (folder / "tokenizer_config.json").read_text() == '{"changed": true}'


def test_a_broken_connection_costs_a_piece_and_not_the_file(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "PIECE_BYTES", 40_000)
    bucket.breaks = 2
    path, _ = fetched("s3://models/gguf")
    assert path.read_bytes() == (bucket.root / "gguf" / "tiny.gguf").read_bytes()


def test_what_a_dead_process_had_fetched_is_not_fetched_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "PIECE_BYTES", 40_000)
    read = BucketModel._read

    def dies_at_the_third(self: BucketModel, *arguments: object) -> bytes:
        if arguments[2] == (80_000, 120_000):
            raise KeyboardInterrupt
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BucketModel, "_read", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fetched("s3://models/gguf")
    monkeypatch.setattr(BucketModel, "_read", read)
    bucket.ranges.clear()
    path, _ = fetched("s3://models/gguf")
    assert bucket.ranges[0] == ("gguf/tiny.gguf", "bytes=80000-119999")
    assert path.read_bytes() == (bucket.root / "gguf" / "tiny.gguf").read_bytes()


def test_content_that_is_not_what_the_etag_says_is_refused_and_not_kept(bucket: Bucket) -> None:
    bucket.corrupt = {"model.safetensors"}
    with pytest.raises(ModelRefused, match=r"its ETag is .*SHA256SUMS") as refusal:
        fetched("s3://models/tiny")
    assert refusal.value.reason is FailureReason.INVALID_MODEL
    bucket.corrupt = set()
    folder, _ = fetched("s3://models/tiny")
    assert (folder / "model.safetensors").read_bytes() == (
        bucket.root / "tiny" / "model.safetensors"
    ).read_bytes()


def test_checksums_beside_the_model_are_believed_before_etags(bucket: Bucket) -> None:
    content = (bucket.root / "tiny" / "model.safetensors").read_bytes()
    other = hashlib.sha256(b"another file").hexdigest()
    sums = bucket.root / "tiny" / "SHA256SUMS"
    sums.write_text(f"{other}  model.safetensors\n")
    with pytest.raises(ModelRefused, match=f"its source promises {other}"):
        fetched("s3://models/tiny")
    sums.write_text(f"{hashlib.sha256(content).hexdigest()} *model.safetensors\n")
    folder, _ = fetched("s3://models/tiny")
    assert (folder / "model.safetensors").read_bytes() == content


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        ("s3://models/nothing", FailureReason.MODEL_NOT_FOUND, "holds no file"),
        ("s3://models/gguf/no.gguf", FailureReason.MODEL_NOT_FOUND, "has no file no.gguf"),
        ("s3://others/tiny", FailureReason.MODEL_NOT_FOUND, "no bucket that is there"),
    ],
)
def test_what_is_not_there_is_not_found(model: str, reason: FailureReason, words: str) -> None:
    failure = inspect(model).failure
    assert failure is not None
    assert failure.reason is reason
    assert model in failure.message
    assert words in failure.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_bucket_that_refuses_is_access_denied(bucket: Bucket, status: int) -> None:
    bucket.status = status
    failure = inspect("s3://models/tiny").failure
    assert failure is not None
    assert failure.reason is FailureReason.ACCESS_DENIED
    assert "AWS_ACCESS_KEY_ID" in failure.message
    assert "secretRef" in failure.message


def test_plain_http_is_spoken_only_when_asked_for(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    failure = inspect("s3://models/tiny").failure
    assert failure is not None
    assert failure.reason is FailureReason.SOURCE_UNREACHABLE
    assert "AWS_ALLOW_HTTP" in failure.message
    assert bucket.sent_bytes == 0


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_never_answers_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "_FIRST_ANSWER_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        failure = inspect("s3://models/tiny").failure
    assert failure is not None
    assert failure.reason is FailureReason.SOURCE_UNREACHABLE
