"""`llm-engine serve` whose engine is simulated, but in a process of its own as a real one is.

Usage: python -m tests.server.simulated_server PORT DRAIN_SECONDS PROFILE_AS_JSON
"""

import os
import sys
from functools import partial

from llm_engine.contract.arguments import ServeArguments
from llm_engine.contract.latency_profile import LatencyProfile
from llm_engine.engine.simulation import simulated_engine
from llm_engine.server.backend import Backend
from llm_engine.server.engine_process import EngineProcess
from llm_engine.server.failure import EXIT_CODE, failure_of, say
from llm_engine.server.lifecycle import Lifecycle, process_began_s
from llm_engine.server.log_lines import start_logging
from llm_engine.server.process import EngineDied, bind, serve
from llm_engine.tokenizer.byte_tokenizer import ByteTokenizer


def main() -> int:
    port, drain_s, profile = sys.argv[1:]
    lifecycle = Lifecycle(process_began_s())
    start_logging()
    arguments = ServeArguments("fake", "fake", port=int(port), drain_s=float(drain_s))
    make = partial(simulated_engine, LatencyProfile.model_validate_json(profile))

    async def load() -> Backend:
        process = await EngineProcess.launch()
        await process.load(make, ByteTokenizer(), lifecycle.enter)
        return process

    try:
        serve(arguments, bind("127.0.0.1", int(port)), lifecycle, load)
    except EngineDied as error:
        say(failure_of(error))
        return EXIT_CODE
    return 0


if __name__ == "__main__":
    os._exit(main())
