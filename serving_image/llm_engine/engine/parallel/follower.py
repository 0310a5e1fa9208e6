"""A rank other than the first: computes the steps that it is sent, until nobody sends any more.

Started by `Followers`. It knows no requests, samples nothing, and never outlives the first rank.
"""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

import torch

from llm_engine.engine.parallel.group import find_store, meet
from llm_engine.engine.part import load_part
from llm_engine.engine.step_inputs import StepInputs
from llm_engine.weights.checkpoint import open_checkpoint


def main() -> None:
    """Load this rank's part, say so, and follow.

    Usage: python -m llm_engine.engine.parallel.follower DESCRIPTOR
    """
    # A signal to the whole group means the server; the end of the link is our sign.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = Connection(int(sys.argv[1]))
    task, port = link.recv()
    torch.set_num_threads(task.threads)
    steps: SimpleQueue[StepInputs] = SimpleQueue()
    threading.Thread(target=_receive, args=(link, steps), daemon=True).start()
    try:
        sum_ranks = meet(find_store(port, task.rank.count), task.rank, task.torch_device)
        runner = load_part(open_checkpoint(task.path), task, sum_ranks)
    except Exception as error:
        link.send(f"{type(error).__name__}: {error}")
        raise
    link.send(None)
    while True:
        runner.hidden(steps.get())


def _receive(link: Connection, steps: "SimpleQueue[StepInputs]") -> None:
    """Queue what comes; when the first rank is gone, so are we, even in the middle of a sum."""
    try:
        while True:
            steps.put(link.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()
