"""A model of any size with random weights, made on the device: no checkpoint, no network."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from llm_engine.contract.quantization import Quantization
from llm_engine.model.assembly import load_decoder
from llm_engine.model.decoder import Decoder
from llm_engine.weights.checkpoint import Checkpoint
from llm_engine.weights.names import Matrix, expected_shapes, weight
from llm_engine.weights.settings import settings_from_folder
from llm_engine.weights.tensors import TensorReader

_QWEN3: Final = {
    "model_type": "qwen3", "rms_norm_eps": 1e-6, "max_position_embeddings": 40_960,
    "rope_theta": 1e6, "tie_word_embeddings": True, "eos_token_id": 0, "hidden_act": "silu",
}  # fmt: skip
CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "0.6B": {
        **_QWEN3, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151_936,
    },
    "8B": {
        "model_type": "llama", "rms_norm_eps": 1e-5, "max_position_embeddings": 131_072,
        "rope_theta": 5e5, "tie_word_embeddings": False, "eos_token_id": 0, "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 128_256,
    },
    "tiny": {
        **_QWEN3, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 260,
    },
}  # fmt: skip
"""What Qwen3-0.6B and Llama-3.1-8B say of their shapes (its rope scaling aside)."""
SPREAD: Final = 0.02


class RandomReader(TensorReader):
    """Weights that nobody trained, in bf16 on the device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        super().__init__(checkpoint)
        settings = checkpoint.settings
        self._shapes = expected_shapes(settings.names, settings.shape)
        self._device = device

    def read(self, name: str) -> Tensor:
        """Return noise of the shape that this tensor has; ones for a norm."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return torch.ones(shape, device=self._device, dtype=torch.bfloat16)
        noise = torch.empty(shape, device=self._device, dtype=torch.bfloat16)
        return noise.normal_(0.0, SPREAD)

    def matrix(self, matrix: Matrix) -> Tensor:
        """Return noise of the linear's shape."""
        return self.read(weight(matrix.name))

    def bias(self, matrix: Matrix) -> Tensor | None:
        """Return None: no linear has a bias."""
        del matrix
        return None


def random_decoder(
    name: str, quantization: Quantization, device: torch.device, max_context_tokens: int
) -> Decoder:
    """Build a decoder of one of CONFIGS, in bf16."""
    torch.manual_seed(5)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIGS[name]))
        settings = settings_from_folder(Path(folder))
        checkpoint = Checkpoint(Path(folder), "safetensors", settings, {}, {})
    return load_decoder(
        checkpoint,
        quantization,
        torch.bfloat16,
        device,
        max_context_tokens,
        reader=RandomReader(checkpoint, device),
    )
