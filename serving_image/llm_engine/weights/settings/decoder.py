"""All that the decoder needs to know beside its weights."""

from dataclasses import dataclass
from typing import Literal

from llm_engine.contract.shape import ModelShape
from llm_engine.contract.stored_format import StoredFormat
from llm_engine.weights.names import Names
from llm_engine.weights.settings.rope import Rope

Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True)
class DecoderSettings:
    """One decoder: a family's fixed traits and a model's own values.

    names               of its tensors in the files
    stored              how the files quantize the linears; None: they do not
    local_rope          rotations of windowed layers where they have their own; None: as all layers
    norm_offset         added to a norm's weight: Gemma stores its difference from 1
    attention_scale     factor on attention scores
    attention_softcap   scores are squeezed to softcap * tanh(score / softcap); None: they are not
    logit_softcap       so for logits
    embedding_scale     factor on embeddings as they enter the first layer
    chosen_sum_to_one   probabilities of a token's experts are scaled to sum to 1
    eos_tokens          ids that end a text
    """

    shape: ModelShape
    names: Names
    rms_eps: float
    rope: Rope
    attention_scale: float
    stored: StoredFormat | None = None
    local_rope: Rope | None = None
    activation: Activation = "silu"
    norm_offset: float = 0.0
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    chosen_sum_to_one: bool = True
    eos_tokens: frozenset[int] = frozenset()
