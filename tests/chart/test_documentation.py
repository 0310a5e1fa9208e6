"""The chart's README and schema say what values.yaml says."""

import json

import pytest
import yaml

from llm_operator.cli.chart_readme import MARK, describe_schema, read_values, render_readme
from tests.chart.rendering import CHART

VALUES = (CHART / "values.yaml").read_text()


def test_every_value_has_a_comment_above_it() -> None:
    assert [v.path for v in read_values(VALUES) if v.leaf and not v.comment] == []


def test_defaults_are_those_that_helm_reads() -> None:
    tree = yaml.safe_load(VALUES)
    for value in read_values(VALUES):
        place = tree
        for key in value.path:
            place = place[key]
        assert place == value.default, value.path


def test_the_readme_lists_every_value() -> None:
    readme = (CHART / "README.md").read_text()
    assert readme == render_readme(readme, read_values(VALUES))


def test_the_schema_describes_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema == describe_schema(schema, read_values(VALUES))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        pytest.param("# One.\na: 1\n", [("a", "One.")], id="a comment above its value"),
        pytest.param("# One\n# two.\na: 1\n", [("a", "One two.")], id="a comment of two lines"),
        pytest.param("# Not its own.\n\na: 1\n", [("a", "")], id="an empty line parts them"),
        pytest.param(
            "s:\n  # In.\n  a: 1\n", [("s", ""), ("s.a", "In.")], id="a value within a section"
        ),
        pytest.param("# All.\na:\n  b: 1\n", [("a", "All.")], id="a map that is set as a whole"),
    ],
)
def test_comments_find_their_values(text: str, rows: list[tuple[str, str]]) -> None:
    assert [(".".join(v.path), v.comment) for v in read_values(text)] == rows


def test_a_value_that_the_schema_lacks_is_named() -> None:
    with pytest.raises(KeyError, match=r"a\.b"):
        describe_schema(
            {"properties": {"a": {"properties": {}}}}, read_values("a:\n  # B.\n  b: 1\n")
        )


def test_two_comments_for_one_shared_definition_are_refused() -> None:
    shared = {"$ref": "#/definitions/image"}
    schema = {
        "properties": {"one": shared, "two": dict(shared)},
        "definitions": {"image": {"properties": {"tag": {}}}},
    }
    text = "one:\n  # A.\n  tag: x\ntwo:\n  # B.\n  tag: x\n"
    with pytest.raises(ValueError, match=r"two\.tag"):
        describe_schema(schema, read_values(text))


def test_a_readme_without_the_mark_is_refused() -> None:
    with pytest.raises(ValueError, match=MARK.split(":", maxsplit=1)[0]):
        render_readme("# no mark\n", ())
