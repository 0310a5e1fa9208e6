"""Images and containers in containerd's store, through its own client `ctr`."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import IO

from e2e.cluster import processes
from e2e.cluster.places import Places
from e2e.cluster.prerequisites import program
from e2e.cluster.progress import CannotContinue, run


def ctr(places: Places, *words: str) -> str:
    """Run `ctr` in the namespace that the kubelet uses."""
    return run([*_ctr(places), *words])


def _ctr(places: Places) -> list[str]:
    socket = str(places.containerd_socket)
    return [str(program("ctr")), "--address", socket, "--namespace", "k8s.io"]


def start(places: Places, config: str) -> None:
    """Start containerd with one of our configurations and wait until it answers."""
    command = [str(program("containerd")), "-c", str(places.state / config)]
    processes.start(
        places.state / "processes", "containerd", command, places.logs / "containerd.log"
    )
    _wait_until_ready(places)


def _wait_until_ready(places: Places, within_s: float = 20) -> None:
    """Wait until containerd answers."""
    deadline_s = time.monotonic() + within_s
    while True:
        if places.containerd_socket.exists():
            try:
                ctr(places, "version")
                return
            except CannotContinue:
                pass
        if time.monotonic() > deadline_s:
            raise CannotContinue(
                f"containerd does not answer; see {places.logs / 'containerd.log'}"
            )
        time.sleep(0.05)


def image_names(places: Places) -> set[str]:
    """Return the names of all images in the store."""
    return set(_images(places))


def delete_images(places: Places, names: set[str]) -> None:
    """Delete images, and the nameless references that would keep their layers."""
    left = {name: digest for name, digest in _images(places).items() if name not in names}
    named = {digest for name, digest in left.items() if not name.startswith("sha256:")}
    nameless = {name for name, digest in left.items() if digest not in named}
    if gone := (names & image_names(places)) | nameless:
        ctr(places, "images", "delete", *sorted(gone))


def _images(places: Places) -> dict[str, str]:
    """Return the digest of each image's manifest; Kubernetes' part adds names like sha256:..."""
    rows = [line.split() for line in ctr(places, "images", "list").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def remove_containers(places: Places, attempts: int = 10) -> None:
    """Remove every container and sandbox, whose processes have ended; images stay."""
    for attempt in range(attempts):
        tasks = ctr(places, "tasks", "list", "--quiet").split()
        containers = ctr(places, "containers", "list", "--quiet").split()
        if not tasks and not containers:
            return
        last = attempt == attempts - 1
        # containerd itself is taking note of the same deaths: what it was quicker with is gone.
        with contextlib.nullcontext() if last else contextlib.suppress(CannotContinue):
            if tasks:
                ctr(places, "tasks", "delete", "--force", *tasks)
            if containers:
                ctr(places, "containers", "delete", *containers)


def forget_pods(places: Places) -> None:
    """Remove what containerd's Kubernetes part keeps of pods; containerd must not be running."""
    for kind in ("containers", "sandboxes"):
        kept = places.store / "containerd" / "io.containerd.grpc.v1.cri" / kind
        shutil.rmtree(kept, ignore_errors=True)


def import_archive(places: Places, archive: bytes) -> None:
    """Load an OCI archive into the store, and unpack it."""
    import_stream(places, lambda stream: stream.write(archive))


def import_stream(places: Places, write: Callable[[IO[bytes]], object]) -> None:
    """Load the OCI archive that `write` writes into the store, and unpack it."""
    command = [*_ctr(places), "images", "import", "-"]
    with tempfile.TemporaryFile() as said:
        loading = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said)
        assert loading.stdin is not None, "asked for above"
        with contextlib.suppress(BrokenPipeError), loading.stdin as stream:
            write(stream)
        if loading.wait() != 0:
            said.seek(0)
            message = said.read().decode(errors="replace").strip()
            raise CannotContinue(f"containerd refused an image: {message}")
