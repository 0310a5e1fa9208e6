"""Which layers share block tables, and the bytes of a block that follow from it.

Full-attention layers keep every token of a request; a layer of a sliding window keeps the last ones
only. So each kind has tables of its own, and one pool of equal blocks serves both: layers are split
into groups of equal size, and a block holds one group's keys and values of some tokens.
"""

from dataclasses import dataclass

from llm_engine.contract.shape import ModelShape


@dataclass(frozen=True)
class LayerGroup:
    """Layers with one block table per request.

    window_tokens  how many of the newest tokens these layers see; None: all
    """

    layers: tuple[int, ...]
    window_tokens: int | None

    def most_blocks(self, context_tokens: int, step_tokens: int, block_tokens: int) -> int:
        """Return the most blocks that one request of this context ever holds.

        step_tokens  most tokens of a request in one step
        """
        return most_blocks(self.window_tokens, context_tokens, step_tokens, block_tokens)


def most_blocks(
    window_tokens: int | None, context_tokens: int, step_tokens: int, block_tokens: int
) -> int:
    """Return the most blocks that one request of this context ever holds for one layer group.

    step_tokens  most tokens of a request in one step
    """
    whole = -(-context_tokens // block_tokens)
    if window_tokens is None:
        return whole
    return min(whole, -(-(window_tokens + step_tokens) // block_tokens) + 1)


def layer_groups(shape: ModelShape) -> tuple[LayerGroup, ...]:
    """Split the layers into groups of one size, as large as both kinds allow.

    The last group of a kind may have fewer layers: the rest of its blocks is lost, which is why
    the size is that of the rarer kind (Gemma 3: one full layer to five windowed ones).
    """
    windowed = frozenset(shape.windowed_layers)
    full = tuple(layer for layer in range(shape.layers) if layer not in windowed)
    kinds = [(full, None), (shape.windowed_layers, shape.window_tokens)]
    size = group_layers(shape)
    return tuple(
        LayerGroup(layers[first : first + size], window)
        for layers, window in kinds
        for first in range(0, len(layers), size)
    )


def group_layers(shape: ModelShape) -> int:
    """Return the layers of a group: how many layers' keys and values one block holds."""
    windowed = len(shape.windowed_layers)
    counts = [count for count in (windowed, shape.layers - windowed) if count]
    return min(counts)


def block_bytes(shape: ModelShape, block_tokens: int, dtype_bytes: int) -> int:
    """Return the bytes of one block: one group's keys and values of `block_tokens` tokens.

    dtype_bytes  bytes per element of the KV cache's dtype
    """
    return 2 * group_layers(shape) * shape.kv_heads * shape.head_dim * block_tokens * dtype_bytes


def blocks_per_request(
    shape: ModelShape, context_tokens: int, step_tokens: int, block_tokens: int
) -> int:
    """Return the most blocks that one request of this context ever holds, over all groups."""
    return sum(
        group.most_blocks(context_tokens, step_tokens, block_tokens)
        for group in layer_groups(shape)
    )
