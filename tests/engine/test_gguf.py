"""GGUF files: the same model as in safetensors, and every lie in a header found out."""

import contextlib
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.engine import Engine
from llm_engine.weights.checkpoint import open_checkpoint
from llm_engine.weights.ggml_blocks import DECODERS
from llm_engine.weights.gguf_header import BLOCK_BYTES
from llm_engine.weights.names import GGUF_LLAMA, LLAMA, layer_tensors
from llm_engine.weights.tensors import TensorReader
from tests.engine.tiny_gguf import save_gguf
from tests.engine.tiny_llama import an_engine, answer, greedy, prompts_of, reference_model

# Block-quantized rows come in blocks of 32.
WIDE = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4}


def run(engine: Engine) -> list[list[int]]:
    engine.start()
    try:
        return answer(engine, prompts_of(9, 30), greedy(12))
    finally:
        engine.stop()


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_gives_the_tokens_of_the_same_model_in_safetensors(
    tmp_path: Path, tied: bool
) -> None:
    from tests.engine.tiny_llama import save_tiny_llama

    folder = tmp_path / "safetensors"
    model = save_tiny_llama(folder, tie_word_embeddings=tied)
    path = tmp_path / "model.gguf"
    save_gguf(model, path)
    assert run(an_engine(path)) == run(an_engine(folder))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("F32", 0.0),
        ("F16", 1e-3),
        ("BF16", 4e-3),
        ("Q8_0", 0.02),
        ("Q5_1", 0.12),
        ("Q4_1", 0.25),
        ("Q4_0", 0.3),
    ],
)
def test_every_way_of_storing_is_read_near_the_weights(
    tmp_path: Path, kind: str, error: float
) -> None:
    model = reference_model(**WIDE)
    path = tmp_path / "model.gguf"
    save_gguf(model, path, kind)
    checkpoint = open_checkpoint(path)
    assert checkpoint.file_dtype == kind
    reader, weights = TensorReader(checkpoint), model.state_dict()
    shape = checkpoint.settings.shape
    pairs = zip(
        layer_tensors(GGUF_LLAMA, shape, 1).matrices(),
        layer_tensors(LLAMA, shape, 1).matrices(),
        strict=True,
    )
    for stored, named in pairs:
        weight = weights[f"{named.name}.weight"]
        difference = (reader.matrix(stored).float() - weight).abs().max()
        assert difference <= error * weight.abs().max(), named


# Where a block keeps its fp16 factors.
FACTORS = {
    "Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_our_decoders_agree_with_the_gguf_package_to_the_bit(kind: str) -> None:
    generator = np.random.default_rng(5)
    # Any bytes are a block, as long as the factors are finite.
    blocks = generator.integers(0, 256, size=(72, BLOCK_BYTES[kind]), dtype=np.uint8)
    for place in FACTORS[kind]:
        factors = generator.normal(size=(72, 1)).astype(np.float16)
        blocks[:, place : place + 2] = factors.view(np.uint8)
    ours = DECODERS[kind](torch.from_numpy(blocks))
    theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert torch.equal(ours, torch.from_numpy(theirs))


def refused(path: Path) -> ModelRefused:
    with pytest.raises(ModelRefused) as refusal:
        open_checkpoint(path)
    return refusal.value


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    save_gguf(reference_model(), path)
    return path.read_bytes()


def at(content: bytes, offset: int, code: str, value: int) -> bytes:
    return content[:offset] + struct.pack(code, value) + content[offset + struct.calcsize(code) :]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda _: b"", "0 bytes", id="an empty file"),
        pytest.param(lambda c: b"PK" + c[2:], "starts with b'PKUF'", id="another format"),
        pytest.param(lambda c: at(c, 4, "<I", 9), "GGUF version 9", id="an unknown version"),
        pytest.param(lambda c: at(c, 8, "<Q", 2**60), "claims", id="2^60 tensors"),
        pytest.param(lambda c: at(c, 16, "<Q", 2**60), "claims", id="2^60 metadata entries"),
        pytest.param(lambda c: at(c, 24, "<Q", 2**63), "claims", id="a key of 2^63 bytes"),
        pytest.param(lambda c: c[:100], "the header goes on|claims", id="cut in the metadata"),
        pytest.param(lambda c: c[:-500], "is the download complete", id="cut in the weights"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(
    tmp_path: Path, sound: bytes, damage: Any, words: str
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(sound))
    refusal = refused(path)
    assert refusal.reason is FailureReason.INVALID_MODEL
    assert str(path) in refusal.message
    with pytest.raises(ModelRefused, match=words):
        raise refusal


@pytest.mark.parametrize("offset", range(0, 4000, 61))
def test_no_byte_in_a_header_can_do_worse_than_a_refusal(
    tmp_path: Path, sound: bytes, offset: int
) -> None:
    path = tmp_path / "flipped.gguf"
    path.write_bytes(sound[:offset] + bytes([sound[offset] ^ 0xFF]) + sound[offset + 1 :])
    # Some bytes are names and text: those may change nothing.
    with contextlib.suppress(ModelRefused):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param({"architecture": "mamba"}, FailureReason.UNSUPPORTED_MODEL,
                     "'mamba'.*serves llama, qwen2", id="another architecture"),
        pytest.param({"llama.expert_count": 8, "llama.expert_used_count": 2},
                     FailureReason.INVALID_MODEL, "no tensor blk.0.ffn_gate_exps",
                     id="experts that are not there"),
        pytest.param({"llama.expert_count": 2**31}, FailureReason.INVALID_MODEL,
                     "expert_count is 2147483648", id="an absurd number of experts"),
        pytest.param({"llama.block_count": 4}, FailureReason.INVALID_MODEL,
                     "no tensor blk.3", id="a layer that is not there"),
        pytest.param({"llama.feed_forward_length": 97}, FailureReason.INVALID_MODEL,
                     r"ffn_gate.*\[96, 48\].*expected \[97, 48\]", id="another width"),
        pytest.param({"llama.block_count": 2**32 - 1}, FailureReason.INVALID_MODEL,
                     "block_count is 4294967295", id="2^32 layers"),
        pytest.param({"llama.attention.head_count": 0}, FailureReason.INVALID_MODEL,
                     "query_heads is 0", id="no heads"),
        pytest.param({"llama.context_length": None}, FailureReason.INVALID_MODEL,
                     "llama.context_length is None", id="no context length"),
        pytest.param({"llama.context_length": 2**31}, FailureReason.INVALID_MODEL,
                     "a context of 2147483648", id="an absurd context length"),
    ],
)  # fmt: skip
def test_metadata_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: FailureReason, words: str
) -> None:
    path = tmp_path / "model.gguf"
    save_gguf(reference_model(), path, **changes)
    refusal = refused(path)
    assert refusal.reason is reason
    with pytest.raises(ModelRefused, match=words):
        raise refusal


def test_the_chat_template_of_a_gguf_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    save_gguf(reference_model(), path)
    tokenizer = an_engine(path).tokenizer
    tokens = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    assert tokenizer.decode(tokens, skip_special_tokens=False) == "<|user|>hi<|end|><|begin|>"
    assert 259 in tokenizer.eos_tokens


def test_unpermuted_queries_are_those_that_were_permuted(tmp_path: Path) -> None:
    model = reference_model()
    path = tmp_path / "model.gguf"
    save_gguf(model, path)
    checkpoint = open_checkpoint(path)
    query, *_ = layer_tensors(GGUF_LLAMA, checkpoint.settings.shape, 1).query_key_value
    expected = model.state_dict()["model.layers.1.self_attn.q_proj.weight"]
    assert torch.equal(TensorReader(checkpoint).matrix(query), expected)
