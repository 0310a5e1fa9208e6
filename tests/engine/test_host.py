"""The limits that count are the cgroup's, in both versions and at every level."""

import os
from pathlib import Path

import pytest

from llm_engine.engine.host import read_host

MIB = 1 << 20
CPUS = len(os.sched_getaffinity(0))


def a_root(folder: Path, files: dict[str, str]) -> Path:
    defaults = {"proc/meminfo": "MemTotal: 9999 kB\nMemAvailable: 8388608 kB\n"}
    for name, text in {**defaults, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


V2 = {"proc/self/cgroup": "0::/\n"}
V1 = {"proc/self/cgroup": "4:memory:/pod/box\n3:cpu,cpuacct:/pod/box\n"}
NO_LIMIT_V1 = "9223372036854771712"


@pytest.mark.parametrize(
    ("files", "free_mib"),
    [
        pytest.param({}, 8192, id="no cgroup: what the machine has available"),
        pytest.param(
            {**V2, "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "5"},
            8192,
            id="version 2 without a limit",
        ),
        pytest.param(
            {
                **V2,
                "sys/fs/cgroup/memory.max": str(1000 * MIB),
                "sys/fs/cgroup/memory.current": str(400 * MIB),
                "sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {100 * MIB}\n",
            },
            700,
            id="version 2: limit less use, file pages aside",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/memory.max": str(500 * MIB),
                "sys/fs/cgroup/pod/memory.current": "0",
                "sys/fs/cgroup/pod/box/memory.max": "max",
                "sys/fs/cgroup/pod/box/memory.current": "0",
            },
            500,
            id="version 2: a parent's limit counts",
        ),
        pytest.param(
            {
                **V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
                "sys/fs/cgroup/memory/pod/box/memory.limit_in_bytes": str(300 * MIB),
                "sys/fs/cgroup/memory/pod/box/memory.usage_in_bytes": str(100 * MIB),
                "sys/fs/cgroup/memory/pod/box/memory.stat": f"total_inactive_file {50 * MIB}\n",
            },
            250,
            id="version 1",
        ),
        pytest.param(
            {
                **V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(200 * MIB),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(50 * MIB),
            },
            150,
            id="version 1 seen from inside a container",
        ),
        pytest.param(
            {**V2, "sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "200"},
            0,
            id="over the limit already: nothing, not less",
        ),
    ],
)
def test_free_memory(tmp_path: Path, files: dict[str, str], free_mib: int) -> None:
    assert read_host(a_root(tmp_path, files)).free_bytes == free_mib * MIB


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        pytest.param({}, CPUS, id="no quota: every CPU we may run on"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "max 100000"}, CPUS, id="no quota, version 2"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "100000 100000"}, 1, id="one CPU"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "50000 100000"}, 1, id="half a CPU"),
        pytest.param({**V2, "sys/fs/cgroup/cpu.max": "190000 100000"}, 1, id="rounded down"),
        pytest.param(
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/pod/box/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/pod/box/cpu.cfs_period_us": "100000",
            },
            1,
            id="version 1",
        ),
        pytest.param(
            {
                **V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            CPUS,
            id="version 1 without a quota",
        ),
    ],
)
def test_threads(tmp_path: Path, files: dict[str, str], threads: int) -> None:
    assert read_host(a_root(tmp_path, files)).threads == threads


@pytest.mark.parametrize(
    ("flags", "native"),
    [("fma avx2", False), ("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("", False)],
)
def test_native_bf16(tmp_path: Path, flags: str, native: bool) -> None:
    files = {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\n"}
    assert read_host(a_root(tmp_path, files)).native_bf16 is native


def test_this_machine_can_be_read() -> None:
    host = read_host()
    assert host.free_bytes > 0
    assert 1 <= host.threads <= CPUS
