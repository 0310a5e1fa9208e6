"""Seconds of work on a device."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], device: str, repeat_ms: int = 100) -> float:
    """Return the median seconds of one call: the device's time on a GPU, the wall's on a CPU.

    On a GPU the cache is emptied before each call.
    """
    if device.startswith("cuda"):
        from triton.testing import do_bench

        milliseconds: float = do_bench(work, warmup=25, rep=repeat_ms, return_mode="median")
        return milliseconds / 1e3
    work()
    return statistics.median(wall_seconds(work, device) for _ in range(3))


def wall_seconds(work: Callable[[], object], device: str) -> float:
    """Return the wall's seconds of one call, all that it started on a GPU included."""
    synchronize(device)
    began_s = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began_s


def synchronize(device: str) -> None:
    """Wait until a GPU has done all it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
