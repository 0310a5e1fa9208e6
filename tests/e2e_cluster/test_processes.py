import os
from pathlib import Path

import pytest

from e2e.cluster import processes
from e2e.cluster.processes import Process


def test_a_daemon_is_recorded_seen_and_ended(tmp_path: Path) -> None:
    started = processes.start(tmp_path / "pids", "sleeper", ["sleep", "60"], tmp_path / "log")

    assert processes.recorded(tmp_path / "pids") == [started]
    assert started.alive
    assert started.resident_bytes > 0

    processes.stop([started], grace_s=5)

    assert not started.alive


def test_one_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    deaf = processes.start(
        tmp_path,
        "deaf",
        ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
        tmp_path / "log",
    )

    processes.stop([deaf], grace_s=0.2)

    assert not deaf.alive


def test_another_process_that_got_the_same_id_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    ourselves = Process("long gone", os.getpid(), started=1)

    processes.stop([ourselves], grace_s=0)

    assert not ourselves.alive
    assert sent == []


def test_strays_are_known_by_program_and_folder(tmp_path: Path) -> None:
    marker = f"{tmp_path}/ours"
    log = tmp_path / "log"
    ours = processes.start(tmp_path / "a", "x", ["tail", "-f", f"{marker}/file", "/dev/null"], log)
    try:
        assert [p.pid for p in processes.stray(marker, ["tail"])] == [ours.pid]
        assert processes.stray(marker, ["kubelet"]) == []
        assert processes.stray(f"{tmp_path}/theirs", ["tail"]) == []
    finally:
        processes.stop([ours], grace_s=0)
