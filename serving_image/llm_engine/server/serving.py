"""What every endpoint works with, put together once at the start."""

from collections.abc import Callable
from dataclasses import dataclass, field

from llm_engine.server.backend import Backend
from llm_engine.server.errors import ApiError, draining, not_ready
from llm_engine.server.lifecycle import Lifecycle
from llm_engine.server.metrics import Metrics
from llm_engine.server.streams import Streams
from llm_engine.server.structured.checker import GrammarChecker


@dataclass(frozen=True)
class Serving:
    """A loaded model that answers under a name.

    created     Unix time of the start, which `/v1/models` shows
    begin_drain asks the process to finish what runs and to end
    """

    served_name: str
    created: int
    backend: Backend
    streams: Streams
    metrics: Metrics
    lifecycle: Lifecycle
    begin_drain: Callable[[], None]
    grammars: GrammarChecker = field(default_factory=GrammarChecker)

    def check_ready(self) -> None:
        """Raise `ApiError` (503) unless new requests are welcome."""
        if self.lifecycle.draining:
            raise draining()
        if not self.lifecycle.ready:
            raise not_ready(self.lifecycle.phase)

    def check_model(self, name: str | None) -> None:
        """Raise `ApiError` (404) unless this is the model we serve."""
        if name not in (None, self.served_name):
            message = (
                f"the model {name!r} does not exist here; this server has {self.served_name!r}"
            )
            raise ApiError(404, message, param="model", code="model_not_found")
