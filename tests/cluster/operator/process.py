"""`llm-operator run` as a process of its own, against a real API server."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.cluster.operator.kube import eventually

ROOT = Path(__file__).resolve().parents[3]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Operator:
    """One running operator; ended with the block."""

    def __init__(self, kubeconfig: Path, folder: Path, namespace: str, *flags: str) -> None:
        self.health = f"http://127.0.0.1:{(health := _free_port())}"
        self.metrics = f"http://127.0.0.1:{(metrics := _free_port())}"
        self.log = folder / f"operator-{health}.log"
        self._command = [
            sys.executable, "-m", "llm_operator.cli", "run",
            "--engine-image", "llm-engine:test",
            "--namespace", namespace,
            "--watch-namespace", namespace,
            "--host", "127.0.0.1",
            "--health-port", str(health),
            "--metrics-port", str(metrics),
            "--log-format", "text",
            *flags,
        ]  # fmt: skip
        path = f"{ROOT / 'operator'}:{ROOT / 'serving_image'}"
        self._environ = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": path}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ, cwd=ROOT, stdout=log, stderr=log
            )
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """End it as a node that loses power would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self, within_s: float) -> int:
        """Ask it to end, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def wait_until_it_leads(self, within_s: float = 40.0) -> Self:
        eventually(lambda: self.metric("llm_operator_leader") == 1.0, within_s, self._why())
        return self

    def wait_until_ready(self, within_s: float = 40.0) -> Self:
        eventually(lambda: self.ask("/readyz")[0] == 200, within_s, self._why())
        return self

    def ask(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.health + path, timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        with urllib.request.urlopen(self.metrics + "/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def _why(self) -> str:
        return f"see {self.log}"
