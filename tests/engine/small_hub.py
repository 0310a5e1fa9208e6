"""A small hub on loopback that speaks the protocol of huggingface.co, and misbehaves when asked."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves the folders below `root` as models of the owner `org`.

    breaks   bytes of a file's body, by its name, after which the connection breaks, once
    corrupt  names of files whose content is not what the listing promises
    locked   models that are listed, and whose files answer with this status and error code
    ranges   the Range header of every request for a file's content
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.sent_bytes = 0
        self.tokens: set[str | None] = set()
        self.breaks: dict[str, int] = {}
        self.corrupt: set[str] = set()
        self.locked: dict[str, tuple[int, str]] = {}
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        if "org" in path:  # what the client asks beside models is its own affair
            self.server.tokens.add(self.headers.get("Authorization"))
        if path[:2] == ["api", "models"]:
            self.model(path[3], path[4:])
        elif path[1] in self.server.locked:
            self.error(*self.server.locked[path[1]])
        elif path[0] == "org" and path[2] == "resolve":
            self.file(self.server.root / path[1] / "/".join(path[4:]))
        else:
            self.error(404, "RepoNotFound")

    def model(self, name: str, rest: list[str]) -> None:
        folder = self.server.root / name
        if name == "gated":
            return self.error(403, "GatedRepo")
        if not folder.is_dir():
            return self.error(404, "RepoNotFound")
        if rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            return self.error(404, "RevisionNotFound")
        files = [p for p in folder.rglob("*") if p.is_file()]
        listing = [_described(folder, path) for path in files]
        if rest[:1] == ["tree"]:
            return self.answer(200, json.dumps(listing).encode())
        body = {"id": f"org/{name}", "sha": COMMIT, "siblings": listing}
        return self.answer(200, json.dumps(body).encode())

    def file(self, path: Path) -> None:
        if not path.is_file():
            return self.error(404, "EntryNotFound")
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if path.name in self.server.corrupt:
            content = bytes(len(content))
        wanted = self.headers.get("Range")
        if self.command == "GET":
            self.server.ranges.append(wanted)
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last or len(content)) + 1]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        return self.answer(206 if wanted else 200, content, headers)

    def error(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            name = self.path.rpartition("/")[2]
            sent = body[: self.server.breaks.pop(name, len(body))]
            # Counted before it is sent: a client may look as soon as it has everything.
            self.server.sent_bytes += len(sent)
            self.wfile.write(sent)
            self.close_connection |= len(sent) < len(body)


def _described(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    size = path.stat().st_size
    entry = {"rfilename": name, "path": name, "size": size, "type": "file", "oid": "0"}
    if path.suffix in (".safetensors", ".gguf"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entry["lfs"] = {"size": size, "sha256": digest, "pointerSize": 134}
    return entry
