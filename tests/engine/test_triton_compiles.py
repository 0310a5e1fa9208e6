"""The interpreter forgives what the compiler does not: types, shapes, shared memory."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("compile_kernels.py")
ENGINE = SCRIPT.parents[2] / "serving_image"


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, **environment, "PYTHONPATH": str(ENGINE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("attend") == 4
    assert ended.stdout.count("multiply") == 6
