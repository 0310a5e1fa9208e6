"""The API server as the tests use it: raw objects over HTTPS, and waiting with a bound."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Json = dict[str, Any]
Found = TypeVar("Found")

GROUP = "/apis/llm-operator.dev/v1alpha1"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class Refused(Exception):
    """The API server's answer was an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status


@dataclass(frozen=True)
class Kube:
    """One user of an API server."""

    url: str
    token: str
    authority: bytes

    @classmethod
    def of(cls, kubeconfig: Path) -> "Kube":
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"])
        return cls(cluster["server"], config["users"][0]["user"]["token"], authority)

    def ask(
        self, method: str, path: str, body: Json | None = None, form: str = "application/json"
    ) -> Json:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": form},
        )
        trust = ssl.create_default_context(cadata=self.authority.decode())
        try:
            with urllib.request.urlopen(request, context=trust, timeout=20) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode()[:500]) from None

    def get(self, path: str) -> Json | None:
        try:
            return self.ask("GET", path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def list(self, path: str) -> list[Json]:
        return list(self.ask("GET", path)["items"])

    def apply(self, path: str, manifest: Json) -> Json:
        return self.ask("PATCH", f"{path}?fieldManager=test&force=true", manifest, _APPLY)

    def merge(self, path: str, patch: Json) -> Json:
        return self.ask("PATCH", path, patch, _MERGE)

    def delete(self, path: str) -> None:
        self.ask("DELETE", path)


def eventually(look: Callable[[], Found], within_s: float = 20.0, why: str = "") -> Found:
    """Return what `look` finds as soon as it is truthy and raises nothing."""
    end_s = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < end_s:
        try:
            found = look()
        except (AssertionError, Refused, KeyError, IndexError, TypeError, OSError) as problem:
            last = problem
        else:
            if found:
                return found
            last = found
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s} s: {why or last!r}")
