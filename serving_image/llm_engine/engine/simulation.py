"""A runner that computes nothing: it waits as long as a profile says, and repeats one sentence.

Everything around it (scheduler, block pool, server) is what a real model has.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, cast

from pydantic import ValidationError

from llm_engine.contract.latency_profile import LatencyProfile
from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_engine.engine.engine import Engine
from llm_engine.engine.loaded import Loaded
from llm_engine.sampling.choice import Choice, Score
from llm_engine.sampling.sampled import Sampled, StepResult, TokenLogprob
from llm_engine.scheduling.plan import Limits
from llm_engine.scheduling.request import Request
from llm_engine.tokenizer.byte_tokenizer import END_TOKEN, ByteTokenizer

if TYPE_CHECKING:
    from llm_engine.tokenizer.tokenizer import Tokenizer

SENTENCE: Final = b"This text was simulated and means nothing at all. "
_FOREVER_S: Final = 1e9


class SimulatedFailure(Exception):
    """What the profile's chances asked for."""


class SimulatedRunner:
    """Waits instead of computing.

    sleep     waits so many seconds
    chance    draws jitter and failures
    sentence  tokens that every text repeats
    end       the token that ends a text
    """

    def __init__(
        self,
        profile: LatencyProfile,
        sleep: Callable[[float], None] = time.sleep,
        chance: Random | None = None,
        sentence: Sequence[int] = SENTENCE,
        end: int = END_TOKEN,
    ) -> None:
        self._profile = profile
        self._sentence = sentence
        self._end = end
        self._sleep = sleep
        self._chance = chance or Random(profile.seed)

    @property
    def blocks(self) -> int:
        """Count the blocks of the KV cache that is not there."""
        return self._profile.blocks

    @property
    def block_tokens(self) -> int:
        """Return the tokens of one block."""
        return self._profile.block_tokens

    @property
    def weight_bytes(self) -> int:
        """Return the bytes that the weights would take in bf16; 0 where no shape is given."""
        shape = self._profile.shape
        return 0 if shape is None else shape.weight_bytes(Quantization.NONE, 2)

    @property
    def cache_bytes(self) -> int:
        """Return 0: nothing is kept."""
        return 0

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Return the window of the one layer group: it sees everything."""
        return (None,)

    def enter_thread(self) -> None:
        """Need nothing of the thread."""

    def run(
        self,
        tokens: Mapping[Request, int],
        choices: Sequence[Choice],
        scores: Sequence[Score] = (),
    ) -> StepResult:
        """Take the time of this step, then return the next token of each choice."""
        self._fail_by_chance()
        decoding = sum(request.is_decoding for request in tokens)
        context = sum(request.computed_tokens + count for request, count in tokens.items())
        spread = self._chance.uniform(-1, 1)
        prefill = sum(tokens.values()) - decoding
        self._sleep(self._profile.step_seconds(prefill, decoding, context, spread))
        return StepResult(
            [_certain(self._next_token(choice), choice) for choice in choices],
            [[TokenLogprob(token, 0.0) for token in score.tokens] for score in scores],
        )

    def _next_token(self, choice: Choice) -> int:
        position = len(choice.tokens) - choice.prompt_tokens
        wants_end = position >= max(self._profile.answer_tokens, choice.parameters.min_tokens)
        if wants_end and not choice.parameters.ignore_eos:
            return self._end
        return self._sentence[position % len(self._sentence)]

    def _fail_by_chance(self) -> None:
        failures = self._profile.failures
        if self._happens(failures.crash):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._happens(failures.hang):
            self._sleep(_FOREVER_S)
        if self._happens(failures.step_error):
            raise SimulatedFailure("the profile asked for a failed step")

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._chance.random() < probability


def _certain(token: int, choice: Choice) -> Sampled:
    """Return a token that has all the probability there is."""
    if choice.parameters.top_logprobs is None:
        return Sampled(token)
    return Sampled(token, TokenLogprob(token, 0.0, ((token, 0.0),)))


def read_profile(path: Path) -> LatencyProfile:
    """Read a profile from a JSON file; raises ValueError that names file, field and value."""
    try:
        return LatencyProfile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"--simulate: cannot read {path} ({error.strerror})") from None
    except ValidationError as error:
        flaws = "; ".join(
            f"{'.'.join(map(str, flaw['loc'])) or 'profile'}: {flaw['msg']}"
            for flaw in error.errors(include_url=False)
        )
        raise ValueError(f"--simulate: {path}: {flaws}") from None


def load_simulation(
    profile: LatencyProfile,
    on_phase: Callable[[str], None] = lambda _phase: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Loaded:
    """Take as long as a real start would, and return a model that is only simulated."""
    chance = Random(profile.seed)
    on_phase("load")
    sleep(profile.start_s + profile.slow_start_s * chance.random())
    if chance.random() < profile.failures.start_error:
        raise SimulatedFailure("the profile asked for a failed start")
    tokenizer = load_profile_tokenizer(profile)
    sentence = tokenizer.encode(SENTENCE.decode(), add_special_tokens=False)
    return Loaded(
        shape=profile.shape or _shapeless(profile, tokenizer.vocabulary),
        tokenizer=tokenizer,
        runner=SimulatedRunner(profile, sleep, chance, sentence, min(tokenizer.eos_tokens)),
        limits=Limits(step_tokens=profile.step_tokens, step_requests=profile.step_requests),
        max_context_tokens=profile.max_context_tokens,
        device="simulated",
        dtype="bfloat16",
    )


def load_profile_tokenizer(profile: LatencyProfile) -> "Tokenizer":
    """Return the tokenizer that the profile names, or the stand-in; raises ModelRefused."""
    if profile.tokenizer is None:
        # It has every method that the engine and the server call.
        return cast("Tokenizer", ByteTokenizer())
    from llm_engine.tokenizer.tokenizer import load_tokenizer
    from llm_engine.weights.checkpoint import open_checkpoint

    return load_tokenizer(open_checkpoint(Path(profile.tokenizer)))


def simulated_engine(
    profile: LatencyProfile,
    on_phase: Callable[[str], None] = lambda _phase: None,
    tpot_target_s: float | None = None,
    keeps_prefixes: bool = True,
) -> Engine:
    """Return an engine, not started, that takes the time of one and computes nothing."""
    return Engine(load_simulation(profile, on_phase), tpot_target_s, keeps_prefixes)


def _shapeless(profile: LatencyProfile, vocabulary: int) -> ModelShape:
    return ModelShape(
        architecture="simulated",
        layers=1,
        hidden_size=1,
        intermediate_size=1,
        query_heads=1,
        kv_heads=1,
        head_dim=1,
        vocabulary=vocabulary,
        context_tokens=profile.max_context_tokens,
        tied_embeddings=True,
    )
