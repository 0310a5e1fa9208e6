"""Headers that lie: no byte does worse than a refusal, and no memory is taken first."""

import contextlib
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.gguf_header import read_gguf_header
from llm_engine.weights.safetensors_header import read_safetensors_header, read_safetensors_headers

TERABYTE = 1 << 40
NAMES = st.sampled_from(["a", "b", "model.norm.weight", "__metadata__", ""]) | st.text(max_size=8)
NUMBERS = st.integers(-(2**70), 2**70) | st.integers(0, 64) | st.floats() | st.booleans()
VALUES = st.recursive(
    st.none() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F7"]) | VALUES,
        "shape": st.lists(NUMBERS, max_size=4) | VALUES,
        "data_offsets": st.lists(st.integers(-8, 64), min_size=2, max_size=2) | VALUES,
    }
)
HEADERS = st.dictionaries(NAMES, TENSORS | VALUES, max_size=4).map(json.dumps).map(str.encode)


def a_safetensors(header: bytes, length: int | None = None, data_bytes: int = 64) -> bytes:
    claimed = len(header) if length is None else length
    return struct.pack("<Q", claimed) + header + bytes(data_bytes)


def tensors(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


def f32(begin: int, end: int, *shape: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


def a_hole(path: Path, beginning: bytes, size: int = TERABYTE) -> Path:
    """Write a file that claims a size and takes none."""
    with path.open("wb") as file:
        file.write(beginning)
        file.truncate(size)
    return path


@given(HEADERS | st.binary(max_size=64), st.none() | st.integers(0, 2**64 - 1))
def test_no_safetensors_header_does_worse_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, length: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(a_safetensors(header, length))
    with contextlib.suppress(ModelRefused):
        for entry in read_safetensors_header(path).values():
            assert 0 <= entry.start <= entry.start + entry.stored_bytes <= path.stat().st_size


@given(st.binary(max_size=200), st.integers(0, 3))
def test_no_gguf_header_does_worse_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes, version: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", version) + rest)
    with contextlib.suppress(ModelRefused):
        read_gguf_header(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(
            a_safetensors(tensors(a=f32(0, 16, 4), b=f32(12, 28, 4))),
            ["a and b overlap"],
            id="two tensors in the same bytes",
        ),
        pytest.param(
            a_safetensors(b'{"a": 1, "a": 2}'), ["'a' twice"], id="one name for two tensors"
        ),
        pytest.param(a_safetensors(b'{"\xff": 1}'), ["not JSON"], id="not UTF-8"),
        pytest.param(a_safetensors(b"[" * 50_000), ["not JSON"], id="50,000 lists in each other"),
        pytest.param(
            a_safetensors(tensors(a=f32(0, 16, *[1] * 9, 4))), ["described by"], id="10 dimensions"
        ),
        pytest.param(
            a_safetensors(tensors(a=f32(16, 0, -4))), ["described by"], id="a negative dimension"
        ),
        pytest.param(
            a_safetensors(tensors(a=f32(16, 0, 4))),
            ["spans -16 bytes"],
            id="an end before its begin",
        ),
        pytest.param(
            a_safetensors(tensors(a=f32(0, 16, 5))), ["spans 16", "expected 20"], id="a wrong count"
        ),
        pytest.param(
            a_safetensors(tensors(a=f32(56, 72, 4))), ["ends at byte"], id="an end beyond the file"
        ),
        pytest.param(
            a_safetensors(tensors(a=f32(0, 16, 4)), length=2**63), ["claims"], id="2^63 bytes"
        ),
    ],
)
def test_a_lying_safetensors_header_is_refused_by_name(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelRefused) as refusal:
        read_safetensors_header(path)
    assert refusal.value.reason is FailureReason.INVALID_MODEL
    assert all(word in refusal.value.message for word in [str(path), *words]), refusal.value.message


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        pytest.param({"a": "../x.safetensors"}, "without a folder", id="a folder above"),
        pytest.param({"a": "/etc/passwd.safetensors"}, "without a folder", id="an absolute path"),
        pytest.param({"a": "pytorch_model.bin"}, "a .safetensors file", id="a pickle"),
        pytest.param({"a": 7}, "a .safetensors file", id="a number"),
        pytest.param([], "weight_map", id="a list"),
        pytest.param({"a": "two.safetensors"}, "which is not in", id="a missing shard"),
        pytest.param({"b": "one.safetensors"}, "b is not in one", id="a tensor that is not there"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, weight_map: Any, words: str) -> None:
    (tmp_path / "one.safetensors").write_bytes(a_safetensors(tensors(a=f32(0, 16, 4))))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelRefused, match=words) as refusal:
        read_safetensors_headers(tmp_path)
    assert refusal.value.reason is FailureReason.INVALID_MODEL


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for shard in ("one", "two"):
        (tmp_path / f"{shard}.safetensors").write_bytes(a_safetensors(tensors(a=f32(0, 16, 4))))
    placed = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(ModelRefused, match=r"tensor a is in one\.safetensors too"):
        read_safetensors_headers(tmp_path)


GGUF_START = b"GGUF" + struct.pack("<I", 3)
ARRAY, UINT8, STRING = 9, 0, 8


def gguf_array(element: int, count: int) -> bytes:
    """Return a header with one metadata entry: an array of this many elements."""
    return (
        GGUF_START
        + struct.pack("<QQ", 0, 1)
        + struct.pack("<Q", 1) + b"k"
        + struct.pack("<IIQ", ARRAY, element, count)
    )  # fmt: skip


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(gguf_array(UINT8, 10**11), id="an array of 10^11 bytes"),
        pytest.param(gguf_array(STRING, 10**10), id="10^10 empty words"),
        pytest.param(GGUF_START + struct.pack("<QQ", 10**10, 0), id="10^10 tensors"),
        pytest.param(GGUF_START + struct.pack("<QQ", 0, 10**10), id="10^10 metadata entries"),
        pytest.param(GGUF_START + struct.pack("<QQQ", 0, 1, 10**11), id="a name of 10^11 letters"),
    ],
)
def test_a_gguf_file_that_is_a_hole_is_refused_before_memory_is_taken(
    tmp_path: Path, beginning: bytes
) -> None:
    path = a_hole(tmp_path / "hole.gguf", beginning)
    tracemalloc.start()
    try:
        with pytest.raises(ModelRefused, match="claims"):
            read_gguf_header(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_a_safetensors_header_of_100_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = a_hole(tmp_path / "model.safetensors", struct.pack("<Q", 100_000_000) + b"{")
    tracemalloc.start()
    try:
        with pytest.raises(ModelRefused, match="claims 100000000 bytes"):
            read_safetensors_header(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20
