"""A small S3 on loopback: ListObjectsV2, HEAD and GET with ranges; it misbehaves when asked."""

import hashlib
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket(ThreadingHTTPServer):
    """Serves the files below `root` as the keys of the bucket `models`; asks for no signature.

    breaks   answers to GET, counted down: while above 0, the connection breaks half-way
    corrupt  names of files whose content is not what their ETag says
    status   answers every request with this error instead, where set
    ranges   the Range header of every GET, with the key
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.sent_bytes = 0
        self.breaks = 0
        self.corrupt: set[str] = set()
        self.status: int | None = None
        self.ranges: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).strip("/").partition("/")
        if self.server.status is not None:
            self.error(self.server.status, "Refused")
        elif bucket != "models":
            self.error(404, "NoSuchBucket")
        elif key:
            self.file(key)
        else:
            self.listing(parse_qs(url.query).get("prefix", [""])[0])

    def listing(self, prefix: str) -> None:
        root = self.server.root
        keys = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        wanted = [k for k in sorted(keys) if k.startswith(prefix) and "/" not in k[len(prefix) :]]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(root / key).stat().st_size}</Size>"
            f"<ETag>&quot;{_md5(root / key)}&quot;</ETag>"
            "<LastModified>2026-11-27T00:00:00.000Z</LastModified></Contents>"
            for key in wanted
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self.answer(200, body.encode(), {"Content-Type": "application/xml"})

    def file(self, key: str) -> None:
        path = self.server.root / key
        if not path.is_file():
            return self.error(404, "NoSuchKey")
        etag = f'"{_md5(path)}"'
        if self.headers.get("If-Match", etag) != etag:
            return self.error(412, "PreconditionFailed")
        content = path.read_bytes()
        if path.name in self.server.corrupt:
            content = bytes(len(content))
        headers = {"ETag": etag, "Last-Modified": formatdate(0, usegmt=True)}
        wanted = self.headers.get("Range")
        self.server.ranges.append((key, wanted))
        if wanted is None:
            return self.answer(200, content, headers)
        first, last = wanted.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        end = int(first) + len(part) - 1
        headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        return self.answer(206, part, headers)

    def error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self.answer(status, body.encode(), {"Content-Type": "application/xml"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = self.server.breaks > 0 and status == 206
        self.server.breaks -= breaks
        sent = body[: len(body) // 2] if breaks else body
        # Counted before it is sent: a client may look as soon as it has everything.
        self.server.sent_bytes += len(sent)
        self.wfile.write(sent)
        self.close_connection |= breaks


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
