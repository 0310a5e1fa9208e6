"""What this process may use of its host: the cgroup's limits count, not the machine's."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNLIMITED_BYTES: Final = 1 << 60
"""cgroup v1 says "no limit" with a number near 2**63."""


@dataclass(frozen=True)
class Host:
    """Limits of this process.

    free_bytes    memory that can still be taken before the kernel kills us
    threads       compute threads that the CPU quota keeps busy, at least 1
    native_bf16   whether the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)
    """

    free_bytes: int
    threads: int
    native_bf16: bool


def read_host(root: Path = Path("/")) -> Host:
    """Read the limits from /proc and /sys (cgroup v1 or v2) below `root`."""
    groups = _own_groups(root)
    free = _machine_free_bytes(root)
    for folder in groups["memory"]:
        left = _group_free_bytes(folder)
        free = free if left is None else min(free, left)
    cpus = float(len(os.sched_getaffinity(0)))
    for folder in groups["cpu"]:
        quota = _quota_cpus(folder)
        cpus = cpus if quota is None else min(cpus, quota)
    flags = _cpu_flags(root)
    native = "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags
    # Rounded down: a thread that the quota cannot keep running stalls all the others.
    return Host(free_bytes=max(0, free), threads=max(1, int(cpus)), native_bf16=native)


def _own_groups(root: Path) -> dict[str, list[Path]]:
    """Return this process's cgroup folders, innermost first, for memory and for cpu."""
    mount = root / "sys/fs/cgroup"
    found: dict[str, list[Path]] = {"memory": [], "cpu": []}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for kind in found:
            if controllers == "":  # version 2: one tree for all
                tops = [mount, mount / "unified"]
            elif kind in controllers.split(","):
                tops = [mount / kind, mount / controllers]
            else:
                continue
            for top in tops:
                inner = top / path.lstrip("/")
                # Inside a container the path may be the host's: then only the mount itself exists.
                folders = [inner, *inner.parents]
                found[kind] += [f for f in folders if f.is_relative_to(top) and f.is_dir()]
    return found


def _group_free_bytes(folder: Path) -> int | None:
    """Return limit minus use; file pages that can be dropped do not count as used."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit = _number(folder / limit_name)
        usage = _number(folder / usage_name)
        if limit is not None and usage is not None and limit < _UNLIMITED_BYTES:
            return limit - usage + _inactive_file_bytes(folder)
    return None


def _inactive_file_bytes(folder: Path) -> int:
    stat = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _quota_cpus(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota = _number(folder / "cpu.cfs_quota_us")
    period = _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _machine_free_bytes(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, value = line.split(":", 1)
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0


def _cpu_flags(root: Path) -> frozenset[str]:
    for line in _lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].lstrip("-").isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
