"""The command line: subcommands load when asked for; generated files are current."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llm_operator.cli import SUBCOMMANDS, main
from llm_operator.cli.generate import CHART, generated
from llm_operator.planner.catalogue import catalogue

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Every generated file, as it should be."""
    return generated(ROOT)


@pytest.fixture
def repository(files: dict[str, str], tmp_path: Path) -> Path:
    """A folder that holds what `generate` reads and writes."""
    for path in (*files, f"{CHART}/values.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    return tmp_path


def test_generated_files_are_current(files: dict[str, str]) -> None:
    stale = [path for path, text in files.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make generate`"


def test_generate_check_tells_of_a_stale_file_and_leaves_it(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crd = repository / "crds/llmdeployments.yaml"
    crd.write_text("old")

    status = main(["generate", "--check", "--root", str(repository)])

    assert status == 1
    assert "not current: crds/llmdeployments.yaml" in capsys.readouterr().err
    assert crd.read_text() == "old"


def test_generate_writes_what_is_stale_and_then_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "docs/reference/api.md").unlink()

    assert main(["generate", "--root", str(repository)]) == 0
    assert capsys.readouterr().out == "wrote docs/reference/api.md\n"
    assert main(["generate", "--check", "--root", str(repository)]) == 0
    assert capsys.readouterr().out == ""


def test_generate_refuses_a_folder_that_is_not_the_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--root", str(tmp_path)]) == 2
    assert "is not the repository" in capsys.readouterr().err


def test_the_charts_crds_are_kept_by_helm_and_differ_in_nothing_else(
    files: dict[str, str],
) -> None:
    for plural in ("llmdeployments", "acceleratorclasses"):
        text = files[f"{CHART}/templates/crds/{plural}.yaml"]
        lines = [line for line in text.splitlines() if not line.startswith("{{-")]
        shipped = yaml.safe_load("\n".join(lines))
        annotations = shipped["metadata"].pop("annotations")
        assert annotations == {"helm.sh/resource-policy": "keep"}
        assert shipped == yaml.safe_load(files[f"crds/{plural}.yaml"])
        assert text.count("{{") == 2


def test_the_charts_catalogue_is_that_of_the_planner(files: dict[str, str]) -> None:
    assert yaml.safe_load(files[f"{CHART}/files/accelerators.yaml"]) == catalogue()


def test_a_subcommand_loads_no_other() -> None:
    code = (
        "import sys; from llm_operator.cli import main; main(['generate', '--check']);"
        " print(*sorted(m for m in sys.modules if m in ('kopf', 'kubernetes', 'aiohttp', 'torch')"
        " or m.startswith('llm_operator.cli.')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip

    assert done.stdout.split() == [
        "llm_operator.cli.chart_readme",
        "llm_operator.cli.events_page",
        "llm_operator.cli.generate",
        "llm_operator.cli.reference",
    ]


@pytest.mark.parametrize("words", [[], ["fly"]], ids=["no subcommand", "an unknown one"])
def test_a_wrong_command_line_is_told_with_the_subcommands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    told = capsys.readouterr().out
    assert [name for name in SUBCOMMANDS if name not in told] == []
