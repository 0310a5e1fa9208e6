"""Which part of every layer each of several ranks holds. Arithmetic only.

Heads and the width of MLPs are shared out; embedding, head, norms and routers are on every rank.
"""

from dataclasses import dataclass

from llm_engine.contract.shape import ModelShape


@dataclass(frozen=True)
class Rank:
    """One of `count` processes that compute a model together."""

    index: int = 0
    count: int = 1

    def part(self, size: int) -> range:
        """Return this rank's share of `size` rows or columns, which `rank_shape` has checked."""
        own = size // self.count
        return range(self.index * own, (self.index + 1) * own)


def rank_shape(shape: ModelShape, ranks: int) -> ModelShape:
    """Return the shape of what one rank holds; ValueError where the model cannot be cut so."""
    sizes = {
        "query_heads": shape.query_heads,
        "intermediate_size": shape.intermediate_size,
        "expert_size": shape.expert_size or 0,
    }
    for name, size in sizes.items():
        if size % ranks:
            raise ValueError(
                f"tensor parallel {ranks}: {name} is {size}; it must be a multiple of {ranks}"
            )
    if shape.kv_heads % ranks and ranks % shape.kv_heads:
        raise ValueError(
            f"tensor parallel {ranks}: kv_heads is {shape.kv_heads}; it must be a multiple of "
            f"{ranks}, or divide it"
        )
    return shape.model_copy(
        update={
            "query_heads": shape.query_heads // ranks,
            # With fewer heads than ranks, several ranks hold the same one.
            "kv_heads": max(1, shape.kv_heads // ranks),
            "intermediate_size": shape.intermediate_size // ranks,
            "expert_size": shape.expert_size // ranks if shape.expert_size else None,
        }
    )


def query_key_value_rows(shape: ModelShape, rank: Rank) -> tuple[range, ...]:
    """Return this rank's rows of the fused query, key and value."""
    dim, queries, keys = shape.head_dim, shape.query_heads, shape.kv_heads
    own = max(1, keys // rank.count)
    first = rank.index * keys // rank.count
    query = rank.part(queries)
    starts = (query.start, queries + first, queries + keys + first)
    sizes = (len(query), own, own)
    return tuple(
        range(start * dim, (start + size) * dim) for start, size in zip(starts, sizes, strict=True)
    )


def gate_up_rows(width: int, rank: Rank) -> tuple[range, ...]:
    """Return this rank's rows of the fused gate and up of an MLP."""
    own = rank.part(width)
    return (own, range(width + own.start, width + own.stop))
