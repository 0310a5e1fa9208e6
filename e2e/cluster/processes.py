"""Start the components as daemons, remember them exactly, and end them and no one else.

A process is known by its id and its start time: an id alone may since belong to another one.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.prerequisites import SYSTEM_PATH
from e2e.cluster.progress import CannotContinue

COMPONENTS = ("etcd", "kube-apiserver", "containerd", "kube-controller-manager", "kube-scheduler",
              "kubelet", "kube-proxy")  # fmt: skip


@dataclass(frozen=True)
class Process:
    """A process that was started under `name`; `started` is in clock ticks since boot."""

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        seen = _state_and_start(self.pid)
        return seen is not None and seen[0] != "Z" and seen[1] == self.started

    @property
    def resident_bytes(self) -> int:
        """Memory it holds now, shared pages included; 0 when it has ended."""
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            return int(next(line for line in status if line.startswith("VmRSS:")).split()[1]) * 1024
        return 0


def _state_and_start(pid: int) -> tuple[str, int] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return fields[0], int(fields[19])


def start(folder: Path, name: str, command: Sequence[str], log: Path) -> Process:
    """Start a daemon of its own session and write it down in `folder` at once."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}"
    # Only what a daemon needs: no proxy or credential of the caller may leak into pods.
    environ = {"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"}
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command, cwd="/", env=environ, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    seen = _state_and_start(child.pid)
    assert seen is not None, "a child of ours stays visible until we wait for it"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{child.pid} {seen[1]}\n")
    child.returncode = 0  # it outlives us on purpose; without this Python warns about it
    return Process(name, child.pid, seen[1])


def recorded(folder: Path) -> list[Process]:
    """Return what start wrote down, whether or not it still runs."""
    found = []
    for file in sorted(folder.glob("*")):
        words = file.read_text().split()
        if len(words) == 2:
            found.append(Process(file.name, int(words[0]), int(words[1])))
    return found


def stray(marker: str, programs: Sequence[str]) -> list[Process]:
    """Return processes that run one of `programs` with `marker` in an argument.

    They are what a killed run had started and not yet written down, and containerd's shims.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            name = Path(words[0]).name
            if name in programs and any(marker in word for word in words[1:]):
                pid = int(folder.name)
                if seen := _state_and_start(pid):
                    found.append(Process(name, pid, seen[1]))
    return found


def stop(processes: Sequence[Process], *, grace_s: float, within_s: float = 10) -> None:
    """End processes: ask, wait for `grace_s`, kill; CannotContinue where one will not die."""
    _signal(processes, signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
    if not _ended(processes, grace_s or within_s):
        _signal(processes, signal.SIGKILL)
        if not _ended(processes, within_s):
            alive = ", ".join(f"{p.name} ({p.pid})" for p in processes if p.alive)
            raise CannotContinue(f"these processes do not end: {alive}")


def _signal(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        if process.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _ended(processes: Sequence[Process], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while any(process.alive for process in processes):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True
