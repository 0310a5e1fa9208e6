"""`llm-engine serve` with the fake engine, as a process of its own: for signals and ports.

Usage: python -m tests.server.fake_server PORT DRAIN_SECONDS STEP_SECONDS [LOAD_SECONDS]
"""

import asyncio
import os
import sys

from llm_engine.contract.arguments import ServeArguments
from llm_engine.server.backend import Backend
from llm_engine.server.lifecycle import Lifecycle, process_began_s
from llm_engine.server.log_lines import start_logging
from llm_engine.server.process import bind, serve


def main() -> None:
    port, drain_s, step_s, *load = sys.argv[1:]
    lifecycle = Lifecycle(process_began_s())
    start_logging()
    arguments = ServeArguments("fake", "fake", port=int(port), drain_s=float(drain_s))

    async def load_fake() -> Backend:
        lifecycle.enter("load")
        if load:
            await asyncio.sleep(float(load[0]))
        from tests.server.fake_engine import FakeEngine

        return FakeEngine(step_s=float(step_s))

    serve(arguments, bind("127.0.0.1", int(port)), lifecycle, load_fake)
    os._exit(0)


if __name__ == "__main__":
    main()
