"""Mounts below a folder: found and removed, deepest first."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from e2e.cluster.progress import CannotContinue


def below(folder: Path, mountinfo: str) -> list[str]:
    """Return the mount points at or below `folder`, the deepest and latest first.

    mountinfo  the text of /proc/self/mountinfo: fields by spaces, odd characters as octal escapes
    """
    points = [_unescape(line.split()[4]) for line in mountinfo.splitlines() if line.strip()]
    inside = [p for p in points if p == str(folder) or p.startswith(f"{folder}/")]
    return inside[::-1]


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def unmount(folders: Iterable[Path]) -> None:
    """Unmount everything below the folders; what is busy ends with its last user."""
    for folder in folders:
        for point in below(folder, Path("/proc/self/mountinfo").read_text()):
            for lazily in ([], ["--lazy"]):
                command = ["umount", *lazily, point]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    break
        if left := below(folder, Path("/proc/self/mountinfo").read_text()):
            # Whoever removes the folder next would remove what is mounted there.
            raise CannotContinue(f"still mounted: {', '.join(left)}; unmount it by hand")
