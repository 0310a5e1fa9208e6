"""A loaded engine and all that serves it. Importing this module imports FastAPI."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Final

from llm_engine.engine.messages import GenerationRequest, StepRecord
from llm_engine.sampling.parameters import SamplingParameters
from llm_engine.server.app import create_app
from llm_engine.server.backend import Backend
from llm_engine.server.generation import collect, generate
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.metrics import Metrics
from llm_engine.server.serving import Serving
from llm_engine.server.streams import Room, Streams

FEWEST_WAITING: Final = 256
WAITING_PER_RUNNING: Final = 4
"""The queue: so many requests may wait, at least, and for each that can run; prompts may fill the
KV cache as often again.

No less than a gateway sends to one replica (256), so that it is the gateway that holds and refuses.
"""


class Service:
    """The API of one engine, wired up on the event loop that is running.

    begin_drain  asks the process to finish what runs and to end
    clock        monotonic, in seconds
    """

    def __init__(
        self,
        served_name: str,
        engine: Backend,
        lifecycle: Lifecycle,
        begin_drain: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        concurrency = int(engine.stats().max_concurrency)
        waiting = max(FEWEST_WAITING, WAITING_PER_RUNNING * concurrency)
        room = Room(
            requests=concurrency + waiting,
            prompt_tokens=(1 + WAITING_PER_RUNNING) * concurrency * engine.max_context_tokens,
        )
        self._engine = engine
        self.metrics = Metrics(served_name, engine, lifecycle)
        loop = asyncio.get_running_loop()
        self.streams = Streams(engine, self.metrics, loop, room, clock)
        self.app = create_app(
            Serving(
                served_name=served_name,
                created=int(time.time()),
                backend=engine,
                streams=self.streams,
                metrics=self.metrics,
                lifecycle=lifecycle,
                begin_drain=begin_drain,
            )
        )

    async def warm_up(self) -> None:
        """Start the engine and prove it with a first token; raises what goes wrong.

        Nothing of it is counted: the first request of a user is the first in the metrics.
        """
        loop, stepped = asyncio.get_running_loop(), asyncio.Event()

        def note(step: StepRecord) -> None:
            del step
            loop.call_soon_threadsafe(stepped.set)

        self._engine.on_step = note
        self._engine.start()
        uncounted = Metrics("", self._engine, Lifecycle(0.0))
        streams = Streams(self._engine, uncounted, loop, Room(1, 1))
        request = GenerationRequest(
            request_id=uuid.uuid4().hex,
            prompt_tokens=(0,),
            sampling=SamplingParameters(max_tokens=1, temperature=0.0, ignore_eos=True),
        )
        await collect(generate(streams, self._engine.tokenizer, request, stops=()))
        await stepped.wait()  # its record may come after its token
        self._engine.on_step = self._step_done

    def _step_done(self, step: StepRecord) -> None:
        self.metrics.step_done(step)
        self.streams.step_done()
