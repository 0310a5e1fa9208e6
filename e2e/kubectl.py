"""kubectl, for one cluster: what the demo and the stories do, they do as a person would."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from e2e.cluster.progress import CannotContinue, run

Object = dict[str, Any]
Seen = TypeVar("Seen")


class NeverHappened(Exception):
    """Something waited for did not come; the text says what was seen last."""


@dataclass(frozen=True)
class Kubectl:
    """One kubectl program and the cluster that it speaks to.

    context  None takes the kubeconfig's own
    """

    program: Path
    kubeconfig: Path
    context: str | None = None

    def words(self, *words: str | Path) -> list[str]:
        """Return a whole command line, for those who run it themselves."""
        where = ["--kubeconfig", str(self.kubeconfig)]
        where += ["--context", self.context] if self.context else []
        return [str(self.program), *where, *(str(word) for word in words)]

    def __call__(
        self, *words: str | Path, input_text: str | None = None, timeout_s: float = 60
    ) -> str:
        """Run kubectl; raise CannotContinue with its complaint when it fails."""
        return run(self.words(*words), input_text=input_text, timeout_s=timeout_s)

    def succeeds(self, *words: str | Path) -> bool:
        """Run kubectl and return whether it did what it was asked."""
        try:
            self(*words)
        except CannotContinue:
            return False
        return True

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return one object, or None where there is none."""
        text = self("get", kind, name, *_in(namespace), "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text else None

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Return the objects of a kind, in one namespace, by label."""
        narrow = ["-l", selector] if selector else []
        found = json.loads(self("get", kind, *_in(namespace), *narrow, "-o", "json"))
        return list(found["items"])

    def apply(self, *objects: Object, namespace: str | None = None) -> None:
        """Apply objects as `kubectl apply -f` does."""
        self("apply", *_in(namespace), "-f", "-", input_text=yaml.safe_dump_all(objects))

    def replace(self, wanted: Object, namespace: str) -> None:
        """Make an object exactly as given, whatever it was: patches of others do not outlive it."""
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        verb = "create" if self.get(kind, name, namespace) is None else "replace"
        self(verb, "-n", namespace, "-f", "-", input_text=yaml.safe_dump(wanted))

    def patch(self, kind: str, name: str, namespace: str, change: Object) -> None:
        """Merge a change into an object."""
        self("patch", kind, name, "-n", namespace, "--type", "merge", "-p", json.dumps(change))

    @contextmanager
    def forwarded(self, service: str, namespace: str, port: int) -> Iterator[str]:
        """Forward a free local port to a Service; yield its URL."""
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            local = taken.getsockname()[1]
        command = self.words("port-forward", f"service/{service}", f"{local}:{port}")
        process = subprocess.Popen(
            [*command, "-n", namespace], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            eventually("the forwarded port answers", lambda: _answers(local), timeout_s=20)
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.wait(10)


def _in(namespace: str | None) -> tuple[str, ...]:
    return ("-n", namespace) if namespace else ()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def eventually(what: str, look: Callable[[], Seen], timeout_s: float, every_s: float = 0.5) -> Seen:
    """Look until something true is seen, and return it.

    Raises NeverHappened after `timeout_s`; an AssertionError or a failing command of `look`
    counts as not yet.
    """
    give_up_s = time.monotonic() + timeout_s
    while True:
        last: object
        try:
            seen = look()
            if seen:
                return seen
            last = seen
        except (AssertionError, CannotContinue) as error:
            last = error
        if time.monotonic() > give_up_s:
            raise NeverHappened(f"{what}: not within {timeout_s:g} s; last seen: {last!r}")
        time.sleep(every_s)
