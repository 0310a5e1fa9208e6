"""The cgroup that holds every container: made, emptied and removed in each hierarchy."""

import contextlib
import os
import signal
import time
from pathlib import Path

from e2e.cluster.node import CGROUP
from e2e.cluster.progress import CannotContinue

ROOT = Path("/sys/fs/cgroup")


def _ours() -> list[Path]:
    unified = (ROOT / "cgroup.controllers").exists()
    hierarchies = [ROOT] if unified else sorted({path.resolve() for path in ROOT.iterdir()})
    return [hierarchy / CGROUP for hierarchy in hierarchies if hierarchy.is_dir()]


def create() -> None:
    """Make our cgroup in every hierarchy (v1, hybrid) or in the one there is (v2)."""
    controllers = ROOT / "cgroup.controllers"
    if controllers.exists():
        for name in controllers.read_text().split():
            with contextlib.suppress(OSError):  # one that cannot be delegated is not missed
                (ROOT / "cgroup.subtree_control").write_text(f"+{name}")
    for folder in _ours():
        folder.mkdir(exist_ok=True)
        _inherit_cpuset(folder)


def _inherit_cpuset(folder: Path) -> None:
    # A new v1 cpuset is empty, and no process may enter it before it is filled.
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = folder / name
        if file.exists() and file.parent.parent.name == "cpuset" and not file.read_text().strip():
            file.write_text((folder.parent / name).read_text())


def kill(within_s: float = 10) -> None:
    """End every process in our cgroup; raises CannotContinue where one will not die."""
    deadline_s = time.monotonic() + within_s
    while left := _processes():
        if time.monotonic() > deadline_s:
            raise CannotContinue(f"processes {sorted(left)} in cgroup {CGROUP} do not end")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def remove(within_s: float = 5) -> None:
    """Remove our cgroup, whose processes have been ended, from every hierarchy."""
    deadline_s = time.monotonic() + within_s
    while any(folder.exists() for folder in _ours()):
        last = time.monotonic() > deadline_s
        for folder in _ours():
            for below, _, _ in os.walk(folder, topdown=False):
                # Busy for a moment after its last process has ended.
                with contextlib.nullcontext() if last else contextlib.suppress(OSError):
                    Path(below).rmdir()
        time.sleep(0.02)


def _processes() -> set[int]:
    found: set[int] = set()
    for folder in _ours():
        for below, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):  # it has just been removed
                found.update(int(p) for p in Path(below, "cgroup.procs").read_text().split())
    return found
