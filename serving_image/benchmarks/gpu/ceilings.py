"""What this card reaches at best: everything else is a share of that."""

import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.gpu.sections import Row, Setting
from benchmarks.gpu.timing import seconds_of


def measure(setting: Setting) -> Iterator[Row]:
    """Yield the environment, the copy bandwidth and the bf16 matrix rate."""
    yield _environment(setting)
    yield {"ceiling": "copy_gb_per_s", "value": _copied_gb_per_s(setting)}
    yield {"ceiling": "bf16_tflop_per_s", "value": _multiplied_tflop_per_s(setting)}


def _copied_gb_per_s(setting: Setting) -> float:
    """Return what a large copy moves, bytes read and bytes written."""
    floats = 1 << (18 if setting.quick else 29)
    source = torch.randn(floats, device=setting.device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), setting.device)
    return 2 * source.nbytes / seconds / 1e9


def _multiplied_tflop_per_s(setting: Setting) -> float:
    """Return the rate of a large square product of noise."""
    size = 256 if setting.quick else 8192
    left = torch.randn(size, size, device=setting.device, dtype=torch.bfloat16)
    right = torch.randn_like(left)
    seconds = seconds_of(lambda: left @ right, setting.device)
    return 2 * size**3 / seconds / 1e12


def _environment(setting: Setting) -> Row:
    packages = ("torch", "triton", "transformers", "xformers", "numpy")
    row: Row = {"python": platform.python_version()}
    row |= {name: _version(name) for name in packages}
    if setting.device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(setting.device)
        row |= {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "driver": _driver(),
        }
    return row


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
