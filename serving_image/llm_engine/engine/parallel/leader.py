"""The first rank: it plans, samples, and sends every step to the others."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final

from torch import Tensor

from llm_engine.attention.backend import AttentionBackend
from llm_engine.attention.cache import KVCache
from llm_engine.contract.tensor_parallel import Rank
from llm_engine.engine.loaded import RunnerLost
from llm_engine.engine.part import PartTask
from llm_engine.engine.runner import Runner
from llm_engine.engine.step_inputs import StepInputs
from llm_engine.model.decoder import Decoder

END_WITHIN_S: Final = 10.0
"""Followers end at once when their link does; what has not by then is killed."""


class Followers:
    """The processes of the other ranks; the first of them is rank 1."""

    def __init__(self, task: PartTask, store_port: int) -> None:
        self._links: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        for index in range(1, task.rank.count):
            own, other = Pipe()
            command = [sys.executable, "-m", "llm_engine.engine.parallel.follower"]
            descriptor = other.fileno()
            process = subprocess.Popen([*command, str(descriptor)], pass_fds=[descriptor])
            other.close()
            own.send((replace(task, rank=Rank(index, task.rank.count)), store_port))
            self._links.append(own)
            self._processes.append(process)

    @property
    def process_ids(self) -> list[int]:
        """Return the followers' process ids."""
        return [process.pid for process in self._processes]

    def wait_until_loaded(self) -> None:
        """Wait for every rank's part; raises RunnerLost where one cannot be loaded."""
        for index, link in enumerate(self._links, start=1):
            try:
                problem = link.recv()
            except EOFError:
                problem = self._ended(index)
            if problem is not None:
                raise RunnerLost(f"rank {index}: {problem}")

    def send(self, inputs: StepInputs) -> None:
        """Send a step to all of them."""
        data = pickle.dumps(inputs)
        for link in self._links:
            link.send_bytes(data)

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost`, from a thread of its own, should one of them end before it is told to."""
        for index in range(1, len(self._processes) + 1):
            thread = threading.Thread(
                target=self._watch, args=(index, on_lost), name=f"rank {index}", daemon=True
            )
            thread.start()

    def why(self, error: Exception) -> str:
        """Return what is behind a step that failed: a rank that ended, or the error itself."""
        for index in range(1, len(self._processes) + 1):
            try:
                self._processes[index - 1].wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                continue
            return f"rank {index} {self._ended(index)}"
        return f"a step of {len(self._processes) + 1} ranks failed: {error}"

    def stop(self) -> None:
        """End all of them. Idempotent."""
        self._stopping = True
        for link in self._links:
            link.close()
        for process in self._processes:
            try:
                process.wait(timeout=END_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _watch(self, index: int, on_lost: Callable[[str], None]) -> None:
        self._processes[index - 1].wait()
        if not self._stopping:
            on_lost(f"rank {index} {self._ended(index)}")

    def _ended(self, index: int) -> str:
        code = self._processes[index - 1].wait()
        return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


class LeadingRunner(Runner):
    """The first rank's part, and the others'."""

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        attention: AttentionBackend,
        threads: int,
        followers: Followers,
    ) -> None:
        super().__init__(decoder, cache, attention, threads)
        self._followers = followers

    def hidden(self, inputs: StepInputs) -> Tensor:
        """Compute a step together; raises RunnerLost where any rank fails.

        After that nobody knows how far each of them has come, so there is no further step.
        """
        try:
            self._followers.send(inputs)
            return super().hidden(inputs)
        except Exception as error:
            raise RunnerLost(self._followers.why(error)) from error
