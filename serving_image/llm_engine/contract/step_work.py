"""What a step asks of the hardware: beside its time this stands against the roofline."""

from dataclasses import dataclass
from typing import Final, Self

from llm_engine.contract.shape import ModelShape

_DTYPE_BYTES: Final = {"float32": 4, "float8_e4m3fn": 1}
_USUAL_DTYPE_BYTES: Final = 2


@dataclass(frozen=True)
class StepWork:
    """Least traffic and arithmetic of a step; what is padded or done twice does not count.

    weight_bytes        of all weights
    context_bytes       of keys and values of one token
    token_flop          2 for each weight that a token goes through
    attended_flop       4 for each element of a query, for each token that it sees
    expert_share        share of the weights that lies in experts
    idle_share          share of the experts that one token leaves idle
    """

    weight_bytes: int
    context_bytes: int
    token_flop: float
    attended_flop: float
    expert_share: float
    idle_share: float

    @classmethod
    def of(cls, shape: ModelShape, weight_bytes: int, cache_dtype: str) -> Self:
        """Return the law of a model as it is kept in memory."""
        per_token, experts = shape.experts_per_token or 1, shape.experts or 1
        idle_share = 1 - per_token / experts
        idle = shape.parameters - shape.active_parameters
        return cls(
            weight_bytes=weight_bytes,
            context_bytes=shape.kv_bytes_per_token(
                _DTYPE_BYTES.get(cache_dtype, _USUAL_DTYPE_BYTES)
            ),
            token_flop=2.0 * shape.active_parameters,
            attended_flop=4.0 * shape.layers * shape.query_heads * shape.head_dim,
            expert_share=idle / idle_share / shape.parameters if idle_share else 0.0,
            idle_share=idle_share,
        )

    def model_bytes(self, tokens: int, context_tokens: int) -> float:
        """Return the bytes of weights, keys and values that a step reads once.

        tokens          computed, over all requests
        context_tokens  whose keys and values are read, over all requests
        """
        touched = 1 - self.expert_share * self.idle_share**tokens
        return self.weight_bytes * touched + self.context_bytes * context_tokens

    def flop(self, tokens: int, attended_tokens: int) -> float:
        """Return the floating-point operations of a step.

        attended_tokens  seen, summed over the tokens computed
        """
        return self.token_flop * tokens + self.attended_flop * attended_tokens
