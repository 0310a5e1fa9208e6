"""A model ready to run, whatever runs it: torch, or the law of a simulation. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llm_engine.contract.shape import ModelShape
from llm_engine.sampling.choice import Choice, Score
from llm_engine.sampling.grammar import Grammars
from llm_engine.sampling.sampled import StepResult
from llm_engine.scheduling.plan import Limits
from llm_engine.scheduling.request import Request

if TYPE_CHECKING:
    from llm_engine.tokenizer.tokenizer import Tokenizer


class RunnerLost(Exception):
    """What computes steps has lost a part of itself, and will never compute another."""


class OtherRanks(Protocol):
    """Processes that compute a part of every layer each."""

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost`, from any thread, should one of them end before it is told to."""

    def stop(self) -> None:
        """End all of them. Idempotent."""


class StepRunner(Protocol):
    """Computes one planned step. Used by one thread."""

    @property
    def blocks(self) -> int:
        """Count the blocks of the KV cache."""

    @property
    def block_tokens(self) -> int:
        """Return the tokens of one block."""

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights."""

    @property
    def cache_bytes(self) -> int:
        """Return the bytes of keys and values, written or not."""

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Return the window of each layer group; None: it sees everything."""

    def enter_thread(self) -> None:
        """Prepare the thread that will call `run`."""

    def run(
        self,
        tokens: Mapping[Request, int],
        choices: Sequence[Choice],
        scores: Sequence[Score] = (),
    ) -> StepResult:
        """Compute these many tokens of each request.

        choices  one for each request that catches up with its text in this step, in order
        scores   what else is wanted of the tokens computed
        """


@dataclass(frozen=True)
class Loaded:
    """A model ready to run.

    dtype        what is computed in, and what the KV cache keeps
    grammars     compiles grammars for the model's vocabulary; None: its texts follow none
    other_ranks  that the runner depends on; None: it is alone
    """

    shape: ModelShape
    tokenizer: "Tokenizer"
    runner: StepRunner
    limits: Limits
    max_context_tokens: int
    device: str
    dtype: str
    grammars: Grammars | None = None
    other_ranks: OtherRanks | None = None
