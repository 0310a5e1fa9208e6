"""The command line, the logs, the probes, the catalogue."""

import argparse
import json
import logging
from pathlib import Path

import pytest

from llm_operator.cli import run
from llm_operator.cli.events_page import events_page
from llm_operator.cli.logs import JsonLines
from llm_operator.cluster.catalogue import read_catalogue
from llm_operator.cluster.probes import Progress
from llm_operator.reconcile.notes import MEANING, NoteReason


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_line_becomes_settings() -> None:
    settings = run.settings_of(
        parsed(
            "--engine-image", "registry.example/engine:1",
            "--engine-image-pull-secret", "a", "--engine-image-pull-secret", "b",
            "--namespace", "ops", "--watch-namespace", "team-1", "--restrict-engine-traffic",
        )
    )  # fmt: skip
    assert settings.engine.image == "registry.example/engine:1"
    assert settings.engine.pull_secrets == ("a", "b")
    assert settings.engine.namespace == "ops"
    assert settings.engine.restrict_traffic
    assert settings.namespaces == ("team-1",)
    assert (settings.health_port, settings.metrics_port) == (8080, 9090)


def test_no_two_processes_have_one_identity() -> None:
    words = ("--engine-image", "x")
    assert run.settings_of(parsed(*words)).identity != run.settings_of(parsed(*words)).identity


def test_the_engine_image_must_be_said() -> None:
    with pytest.raises(SystemExit):
        parsed()


def test_log_lines_are_json_with_the_exception_in_one_line() -> None:
    try:
        raise ValueError("odd\nvalue")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "look at %s", ("a",), (ValueError, error, None)
        )
    record.deployment = "ns/chat"
    line = JsonLines().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert (said["level"], said["message"], said["deployment"]) == ("error", "look at a", "ns/chat")
    assert "ValueError" in said["exception"]


def progress(**ages: float) -> Progress:
    loops = {"resync": ages.pop("resync", 1.0)}
    return Progress(loops, **({"queue_s": 0.0, "watch_lag_s": 0.0, "contact_s": 0.0} | ages))


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        pytest.param(progress(), None, id="all goes well"),
        pytest.param(progress(contact_s=3600), None, id="an API server away is no reason"),
        pytest.param(progress(resync=121), "resync loop", id="a loop that stands still"),
        pytest.param(progress(queue_s=301), "has waited", id="work that hangs"),
        pytest.param(progress(watch_lag_s=151), "watch has been silent", id="a dead watch"),
    ],
)
def test_health_is_progress(seen: Progress, problem: str | None) -> None:
    problems = list(seen.problems())
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]


def test_a_catalogue_maps_names_to_specs(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text("cpu: {resourceName: cpu}\n")
    assert read_catalogue(path) == {"cpu": {"resourceName": "cpu"}}


@pytest.mark.parametrize("text", ["[1, 2]", "cpu: 3", "{", "\t"])
def test_a_catalogue_that_is_none_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="catalogue"):
        read_catalogue(path)


def test_events_have_few_reasons_and_each_is_explained() -> None:
    assert len(NoteReason) <= 12
    assert set(MEANING) == set(NoteReason)
    page = events_page()
    for reason, meaning in MEANING.items():
        assert f"`{reason.value}`" in page
        assert meaning in page
