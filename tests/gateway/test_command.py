import argparse
import dataclasses
from pathlib import Path

import pytest

from llm_operator.cli import gateway
from llm_operator.gateway.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "gateway.md"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    gateway.add_arguments(parser)
    return parser.parse_args(words)


def test_every_setting_is_a_flag_with_its_own_default() -> None:
    args = parsed()
    for setting in dataclasses.fields(Settings):
        assert getattr(args, setting.name) == getattr(Settings(), setting.name)


def test_flags_are_read_in_their_own_type() -> None:
    args = parsed("--cold-start-seconds", "7", "--held-bytes", "9", "--host", "::1")
    assert (args.cold_start_s, args.held_bytes, args.host) == (7.0, 9, "::1")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        pytest.param("m=http://a:1,http://b:2/", ("m", ("http://a:1", "http://b:2")), id="two"),
        pytest.param("m=", ("m", ()), id="a model without replicas"),
    ],
)
def test_static_models(text: str, model: tuple[str, tuple[str, ...]]) -> None:
    assert parsed("--static", text).static == [model]


@pytest.mark.parametrize("text", ["m", "=http://a:1"])
def test_a_static_model_without_its_form_is_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed("--static", text)
    assert "MODEL=URL" in capsys.readouterr().err


def test_every_flag_is_documented() -> None:
    text = DOCS.read_text()
    missing = [
        gateway.flag(setting.name)
        for setting in dataclasses.fields(Settings)
        if f"`{gateway.flag(setting.name)}`" not in text
    ]
    assert missing == []
