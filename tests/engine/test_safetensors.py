"""Folders with safetensors: sharded or not, and every lie found before memory is taken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_engine.contract.inspection import FailureReason, ModelRefused
from llm_engine.weights.checkpoint import open_checkpoint
from llm_engine.weights.inspection import inspect
from tests.engine.tiny_llama import an_engine, answer, greedy, prompts_of, reference_model


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(tiny_llama, copy)
    return copy


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_header(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    edit(header)
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + content[8 + length :])


def test_shards_are_one_model(tiny_llama: Path, tmp_path: Path) -> None:
    reference_model().save_pretrained(tmp_path, max_shard_size="60KB")
    shutil.copy(tiny_llama / "tokenizer.json", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    texts = []
    for path in (tmp_path, tiny_llama):
        engine = an_engine(path)
        engine.start()
        texts.append(answer(engine, prompts_of(20), greedy(10)))
        engine.stop()
    assert texts[0] == texts[1]
    assert inspect(str(tmp_path)).shape == inspect(str(tiny_llama)).shape


def test_inspection_tells_shape_and_bytes(tiny_llama: Path) -> None:
    report = inspect(str(tiny_llama))
    model = reference_model()
    assert report.failure is None
    assert report.shape is not None
    assert report.shape.parameters == sum(p.numel() for p in model.parameters())
    assert report.file_format == "safetensors"
    assert report.file_dtype == "F32"
    assert report.file_bytes == (tiny_llama / "model.safetensors").stat().st_size


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(text)

    return apply


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, **changes)


def header(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda folder: edit_header(folder, edit)


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    write("model.safetensors.index.json", json.dumps({"weight_map": shards}))(folder)


def leave_the_folder(folder: Path) -> None:
    shards = {"a": "../../secret.safetensors"}
    write("model.safetensors.index.json", json.dumps({"weight_map": shards}))(folder)


NORM = "model.norm.weight"
INVALID, UNSUPPORTED = FailureReason.INVALID_MODEL, FailureReason.UNSUPPORTED_MODEL
NOT_FOUND = FailureReason.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        pytest.param(remove("config.json"), INVALID, ["config.json is missing"], id="no config"),
        pytest.param(write("config.json", "{"), INVALID, ["not readable as JSON"], id="cut config"),
        pytest.param(write("config.json", "[]"), INVALID, ["expected a JSON object"], id="a list"),
        pytest.param(write("config.json", "[" * 100_000), INVALID, ["config.json"], id="deep JSON"),
        pytest.param(config(model_type="bert"), UNSUPPORTED, ["bert", "llama,"], id="a bert"),
        pytest.param(config(mlp_bias=True), UNSUPPORTED, ["mlp_bias"], id="biases"),
        pytest.param(config(quantization_config={"quant_method": "exl3"}), UNSUPPORTED,
                     ["quantization_config", "exl3"], id="quantized in a way unknown"),
        pytest.param(config(rope_parameters={"rope_type": "axial"}), UNSUPPORTED,
                     ["'axial'", "llama3"], id="an unknown rope"),
        pytest.param(config(rope_parameters={"rope_type": "longrope", "short_factor": [1.0]}),
                     INVALID, ["short_factor is [1.0]", "4 positive"], id="a factor too few"),
        pytest.param(config(hidden_act="relu"), UNSUPPORTED, ["'relu'", "silu"], id="a relu"),
        pytest.param(config(layer_types=["chunked_attention"] * 3, sliding_window=8), UNSUPPORTED,
                     ["chunked_attention"], id="an unknown kind of attention"),
        pytest.param(config(num_local_experts=4, num_experts_per_tok=5), INVALID,
                     ["at most the 4 experts"], id="more experts per token than there are"),
        pytest.param(config(rope_parameters={"rope_theta": "10"}), INVALID,
                     ["rope_theta is '10'", "a positive number"], id="theta as text"),
        pytest.param(config(vocab_size=-5), INVALID, ["vocab_size is -5"], id="negative size"),
        pytest.param(config(hidden_size=48.0), INVALID, ["hidden_size is 48.0"], id="a float"),
        pytest.param(config(num_key_value_heads=4), INVALID, ["6 query heads on 4"], id="6 on 4"),
        pytest.param(config(max_position_embeddings=10**12), INVALID, ["1000000000000"],
                     id="an absurd context"),
        pytest.param(config(rms_norm_eps=0), INVALID, ["rms_norm_eps is 0"], id="epsilon of zero"),
        pytest.param(config(eos_token_id="end"), INVALID, ["eos_token_id is 'end'"], id="eos text"),
        pytest.param(config(vocab_size=300), INVALID,
                     ["embed_tokens", "[260, 48]", "expected [300, 48]"], id="a larger vocabulary"),
        pytest.param(config(num_hidden_layers=10**12), INVALID, ["layers is 1000000000000"],
                     id="10^12 layers"),
        pytest.param(config(vocab_size=10**12), INVALID, ["vocabulary is 1000000000000"],
                     id="10^12 words"),
        pytest.param(config(hidden_size=10**400), INVALID, ["hidden_size is 1000"],
                     id="a width of 400 digits"),
        pytest.param(config(num_hidden_layers=5), INVALID,
                     ["no tensor model.layers.3", "and 15 more"], id="more layers than weights"),
        pytest.param(config(tie_word_embeddings=False), INVALID, ["lm_head.weight"], id="no head"),
        pytest.param(to_pickle, NOT_FOUND, ["pytorch_model.bin", "never loaded"], id="a pickle"),
        pytest.param(cut, INVALID, ["is the download complete"], id="a file cut short"),
        pytest.param(lose_a_shard, INVALID, ["model-00002-of-00002"], id="a missing shard"),
        pytest.param(leave_the_folder, INVALID, ["without a folder"], id="a shard elsewhere"),
        pytest.param(write("model.safetensors.index.json", "{}"), INVALID, ["not a shard index"],
                     id="an index of nothing"),
        pytest.param(write("model.safetensors", ""), INVALID, ["file of 0 bytes"], id="empty file"),
        pytest.param(write("model.safetensors", "x" * 99), INVALID, ["header claims"],
                     id="not safetensors"),
        pytest.param(header(lambda h: h[NORM].update(data_offsets=[0, 10**15])), INVALID,
                     [NORM, "spans 1000000000000000"], id="offsets beyond the file"),
        pytest.param(header(lambda h: h[NORM].update(data_offsets=[-8, 40])), INVALID,
                     [NORM, "described by"], id="negative offsets"),
        pytest.param(header(lambda h: h[NORM].update(shape=[10**18])), INVALID, [NORM, "spans 192"],
                     id="a shape beyond the file"),
        pytest.param(header(lambda h: h[NORM].update(dtype="F7")), INVALID, ["'F7'"],
                     id="an unknown dtype"),
        pytest.param(header(lambda h: h[NORM].update(dtype="I32")), UNSUPPORTED, ["I32"],
                     id="integers for weights"),
        pytest.param(header(lambda h: h.update({NORM: "nothing"})), INVALID, ["described by"],
                     id="a tensor that is a text"),
    ],
)  # fmt: skip
def test_what_will_not_do_is_refused_by_name(
    folder: Path, damage: Callable[[Path], None], reason: FailureReason, words: list[str]
) -> None:
    damage(folder)
    report = inspect(str(folder))
    assert report.failure is not None
    assert report.failure.reason is reason
    message = report.failure.message
    assert all(word in message for word in [str(folder), *words]), message


@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        ("/nowhere/at/all", NOT_FOUND, "/nowhere/at/all does not exist"),
        ("ftp://host/model", UNSUPPORTED, "reads hf://"),
        (__file__, INVALID, "is a .py file"),
    ],
)
def test_what_is_no_model_is_refused(model: str, reason: FailureReason, words: str) -> None:
    failure = inspect(model).failure
    assert failure is not None
    assert failure.reason is reason
    assert words in failure.message


def test_a_folder_without_a_tokenizer_is_refused_before_its_weights_are_read(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelRefused, match=r"tokenizer\.json is missing"):
        an_engine(folder)


def test_generation_config_names_further_end_tokens(folder: Path) -> None:
    write("generation_config.json", '{"eos_token_id": [259, 257]}')(folder)
    assert open_checkpoint(folder).settings.eos_tokens == {259, 257}


def test_weights_that_are_not_aligned_are_read_all_the_same(folder: Path) -> None:
    edit_header(folder, lambda h: h.setdefault("__metadata__", {}).update(pad="x"))
    texts = []
    for pad in ("", "x", "xy"):
        edit_header(folder, lambda h, pad=pad: h["__metadata__"].update(pad=pad))  # type: ignore[misc]
        engine = an_engine(folder)
        engine.start()
        texts.append(answer(engine, prompts_of(20), greedy(5)))
        engine.stop()
    assert texts[0] == texts[1] == texts[2]
