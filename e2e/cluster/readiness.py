"""Whether an API server answers, asked without any client library."""

import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from e2e.cluster import processes
from e2e.cluster.progress import CannotContinue


def wait_for_api(
    records: Path, url: str, authority: Path, logs: Path, within_s: float = 60
) -> None:
    """Wait until the API server is ready; raises CannotContinue at once when a process has died."""
    deadline_s = time.monotonic() + within_s
    while not is_ready(url, authority):
        died = [process.name for process in processes.recorded(records) if not process.alive]
        if died or time.monotonic() > deadline_s:
            what = f"{', '.join(died)} ended" if died else f"not ready within {within_s:g} s"
            raise CannotContinue(f"the API server did not start: {what}; see {logs}")
        time.sleep(0.05)


def is_ready(url: str, authority: Path) -> bool:
    """Whether the API server at `url` says it is ready; `authority` signed its certificate."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        # Straight to the address: a proxy of the environment has no business here.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
