"""What the README says is there: its example, its links, its make targets."""

import re
from pathlib import Path

import yaml

from llm_operator.api.parsing import parse_deployment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_example_is_the_one_that_the_demo_applies() -> None:
    shown = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    applied = yaml.safe_load((ROOT / "docs/examples/smollm2.yaml").read_text())
    assert shown == applied
    shown["metadata"] |= {"namespace": "default", "uid": "1", "generation": 1}
    assert parse_deployment(shown).served_name == "smollm2"


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", README)) - targets == set()
