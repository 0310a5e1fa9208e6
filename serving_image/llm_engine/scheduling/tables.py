"""Which blocks hold one request's text, for one layer group."""

from dataclasses import dataclass, field

from llm_engine.contract.layer_groups import most_blocks


@dataclass
class BlockTable:
    """The blocks that one request holds for one layer group.

    window_tokens  newest tokens that the group's layers see; None: all
    released       leading blocks that slid out of the window and were given back
    blocks         blocks[i] is for the tokens from (released + i) * block_tokens on
    """

    window_tokens: int | None = None
    released: int = 0
    blocks: list[int] = field(default_factory=list)

    def blocks_to_add(self, end_tokens: int, block_tokens: int) -> int:
        """Return the blocks still missing for a text of `end_tokens` computed tokens."""
        return max(0, -(-end_tokens // block_tokens) - self.released - len(self.blocks))

    def most_to_add(self, end_tokens: int, chunk_tokens: int, block_tokens: int) -> int:
        """Return the most blocks to be held on the way to `end_tokens`, beyond those held now.

        chunk_tokens  most tokens of the request in one step
        """
        missing = self.blocks_to_add(end_tokens, block_tokens)
        most = most_blocks(self.window_tokens, end_tokens, chunk_tokens, block_tokens)
        return max(0, min(missing, most - len(self.blocks)))

    def slide(self, computed_tokens: int, block_tokens: int) -> list[int]:
        """Let go of the blocks that no token after the computed ones will see, and return them."""
        unseen = unseen_blocks(self.window_tokens, computed_tokens, block_tokens)
        if unseen <= self.released:
            return []
        gone = self.blocks[: unseen - self.released]
        del self.blocks[: len(gone)]
        self.released += len(gone)
        return gone


def unseen_blocks(window_tokens: int | None, computed_tokens: int, block_tokens: int) -> int:
    """Return the leading blocks that no token after the computed ones sees."""
    if window_tokens is None:
        return 0
    # The next token sees itself and the window_tokens - 1 before it.
    return max(0, computed_tokens + 1 - window_tokens) // block_tokens
