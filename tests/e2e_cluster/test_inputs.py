from pathlib import Path

import pytest

from e2e.cluster.inputs import key


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a")
    (tmp_path / "Dockerfile").write_text("FROM base")
    return tmp_path


def test_the_same_content_gives_the_same_key(tree: Path) -> None:
    before = key(tree, ["Dockerfile", "code"], ["setting"])
    (tree / "code" / "a.py").write_text("a")
    (tree / "code" / "__pycache__").mkdir()
    (tree / "code" / "__pycache__" / "a.pyc").write_text("compiled")

    assert key(tree, ["code", "Dockerfile"], ["setting"]) == before
    assert len(before) == 12


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda t: (t / "code" / "a.py").write_text("b"), id="a file's content"),
        pytest.param(
            lambda t: (t / "code" / "a.py").rename(t / "code" / "b.py"), id="a file's name"
        ),
        pytest.param(lambda t: (t / "code" / "b.py").touch(), id="a new empty file"),
        pytest.param(lambda t: (t / "Dockerfile").write_text("FROM other"), id="a named file"),
    ],
)
def test_the_key_changes_with(tree: Path, change: object) -> None:
    before = key(tree, ["Dockerfile", "code"])
    assert callable(change)
    change(tree)

    assert key(tree, ["Dockerfile", "code"]) != before


def test_settings_cannot_be_mistaken_for_one_another(tree: Path) -> None:
    assert key(tree, [], ["ab", "c"]) != key(tree, [], ["a", "bc"])


def test_a_missing_input_is_named(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"uv\.lock is an input"):
        key(tree, ["uv.lock"])
