"""A request as the scheduler sees it: tokens known, how many are computed, blocks held."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Request:
    """One request's place in the engine; requests are the same only if they are one object.

    tokens          prompt and output so far; grows by the sampled token
    prompt_tokens   how many of `tokens` are the prompt
    computed_tokens how many of `tokens` have keys and values in `blocks`
    furthest_tokens the most that was ever computed: what preemption throws away is below it
    """

    request_id: str
    tokens: list[int]
    block_tokens: int
    prompt_tokens: int = field(init=False)
    computed_tokens: int = 0
    furthest_tokens: int = 0
    blocks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def tokens_behind(self) -> int:
        """Count tokens still to compute: a whole prompt, or the one token sampled last."""
        return len(self.tokens) - self.computed_tokens

    @property
    def output_tokens(self) -> int:
        """Count tokens sampled so far."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def is_decoding(self) -> bool:
        """Tell whether only the last sampled token is missing."""
        return self.tokens_behind == 1 and self.output_tokens > 0

    def advance(self, count: int) -> int:
        """Note `count` more tokens as computed; return how many had been computed before."""
        before = self.computed_tokens
        self.computed_tokens += count
        again = max(0, min(self.furthest_tokens, self.computed_tokens) - before)
        self.furthest_tokens = max(self.furthest_tokens, self.computed_tokens)
        return again

    def restart(self) -> None:
        """Forget blocks and what was computed; the tokens stay."""
        self.blocks = []
        self.computed_tokens = 0

    def blocks_to_add(self, count: int) -> int:
        """Return the blocks that computing `count` more tokens needs beyond those held."""
        needed = -(-(self.computed_tokens + count) // self.block_tokens)
        return max(0, needed - len(self.blocks))
