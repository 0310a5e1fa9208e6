"""The layout rules that no linter keeps."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_STEMS = {"utils", "helpers", "common", "manager", "misc", "base"}


def python_files() -> list[Path]:
    """Python files of the checkout, without environments and caches."""
    tops = ("operator", "serving_image", "tests", "e2e")
    return [path for top in tops for path in (ROOT / top).rglob("*.py")]


@pytest.mark.parametrize("folder", ["operator", "serving_image"])
def test_no_init_in_the_folders_that_only_hold_a_package(folder: str) -> None:
    """`operator/__init__.py` would shadow the standard library's `operator`."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_standard_library_operator_is_found_from_the_checkout() -> None:
    code = "import operator, sys; sys.exit(0 if hasattr(operator, 'itemgetter') else 1)"
    assert subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in python_files() if path.stem in FORBIDDEN_STEMS] == []


def test_no_module_bears_the_name_of_a_standard_module() -> None:
    packages = [path for path in python_files() if path.is_relative_to(ROOT / "operator")]
    packages += [path for path in python_files() if path.is_relative_to(ROOT / "serving_image")]
    assert [path for path in packages if path.stem in sys.stdlib_module_names] == []
