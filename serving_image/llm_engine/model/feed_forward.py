"""What follows attention in a layer: one gated MLP, or a choice among several."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from llm_engine.quantization.linear import Linear
from llm_engine.weights.settings.decoder import Activation

ACTIVATIONS: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "silu": F.silu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class FeedForward(Protocol):
    """Maps each token's normed state to what is added to it."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of all its weights."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Map [tokens, hidden_size] to [tokens, hidden_size]."""
        ...


@dataclass(frozen=True)
class GatedMlp:
    """down(activation(gate(x)) * up(x)); gate and up are one linear."""

    gate_up: Linear
    down: Linear
    activation: Callable[[Tensor], Tensor]

    @property
    def weight_bytes(self) -> int:
        """Bytes of both linears."""
        return self.gate_up.weight_bytes + self.down.weight_bytes

    def __call__(self, x: Tensor) -> Tensor:
        """Map [tokens, hidden_size] to [tokens, hidden_size]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)


@dataclass(frozen=True)
class Experts:
    """A few of many MLPs for each token, weighed by the router's probabilities.

    router            to [tokens, experts]
    chosen_sum_to_one probabilities of a token's experts are scaled to sum to 1
    """

    router: Linear
    experts: tuple[FeedForward, ...]
    experts_per_token: int
    chosen_sum_to_one: bool

    @property
    def weight_bytes(self) -> int:
        """Bytes of the router and all experts."""
        return self.router.weight_bytes + sum(expert.weight_bytes for expert in self.experts)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [tokens, hidden_size] to [tokens, hidden_size]: each expert is called once."""
        if not len(x):  # the middle of a prompt: no row of the last layer is asked for
            return x
        probabilities = torch.softmax(self.router(x).float(), dim=-1)
        weights, chosen = probabilities.topk(self.experts_per_token)  # [tokens, per_token]
        if self.chosen_sum_to_one:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        # Choices in the order of their experts: each expert's tokens lie side by side.
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        inputs = torch.split(x[order // self.experts_per_token], counts)
        outputs = [
            expert(rows) for expert, rows in zip(self.experts, inputs, strict=True) if len(rows)
        ]
        seen = x.new_empty(len(order), x.shape[1])
        seen[order] = torch.cat(outputs)
        # A token's experts are summed in the order of its own choice, whoever else is in the step.
        weighed = seen.view(*chosen.shape, -1) * weights[:, :, None].to(x.dtype)
        return weighed.sum(dim=1)
