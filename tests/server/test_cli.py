"""The command line is what the contract builds."""

from pathlib import Path

import pytest

from llm_engine import cli
from llm_engine.contract.arguments import AttentionName, ServeArguments, inspect_command_line
from llm_engine.contract.quantization import Quantization


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(ServeArguments("/models/m", "m"), id="only what must be given"),
        pytest.param(
            ServeArguments(
                model="hf://owner/name@main",
                served_name="name",
                quantization=Quantization.INT8,
                port=9000,
                host="::",
                device="cuda:1",
                attention=AttentionName.TRITON,
                max_context_tokens=4096,
                kv_cache_bytes=1 << 30,
                drain_s=12.5,
                tpot_target_s=0.05,
            ),
            id="everything",
        ),
    ],
)
def test_serve_understands_what_the_operator_builds(arguments: ServeArguments) -> None:
    options = cli.parser().parse_args(arguments.command_line())
    assert cli.serve_arguments(options) == arguments


def test_inspect_understands_what_the_operator_builds() -> None:
    options = cli.parser().parse_args(inspect_command_line("/models/m", "/dev/termination-log"))
    expected = ("/models/m", True, Path("/dev/termination-log"))
    assert (options.model, options.json, options.output) == expected


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param("/models/Smol.Q4_1.gguf", "Smol.Q4_1", id="a GGUF file"),
        pytest.param("hf://owner/name@abc", "name", id="a source with a revision"),
    ],
)
def test_a_model_is_served_under_its_short_name(model: str, name: str) -> None:
    options = cli.parser().parse_args(["serve", model])
    assert cli.serve_arguments(options).served_name == name


def test_an_unknown_quantization_is_told_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["serve", "m", "--quantization", "int3"])
    said = capsys.readouterr().err
    assert all(repr(known.value) in said for known in Quantization)
