"""A TCP proxy in front of the API server that can go silent, as a network does."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Forwards bytes both ways; `silent` holds all of them back without closing anything."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (str(parts.hostname), int(parts.port or 443))
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._door.getsockname()[1]}"
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._flows.set()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for one in (self._door, *self._sockets):
            one.close()

    def silent(self) -> None:
        self._flows.clear()

    def flowing(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Break every connection."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def through(self, kubeconfig: Path) -> Path:
        """Return a copy of a kubeconfig that goes through this proxy."""
        config = json.loads(kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = self.url
        copy = kubeconfig.with_suffix(".proxied")
        copy.write_text(json.dumps(config))
        return copy

    def _run(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._target, timeout=10)
                server.settimeout(None)
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    self._run(self._pump, source, sink)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
