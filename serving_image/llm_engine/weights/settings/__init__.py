"""From config.json or GGUF metadata to one description of the decoder."""

from llm_engine.weights.settings.config import settings_from_folder
from llm_engine.weights.settings.decoder import DecoderSettings
from llm_engine.weights.settings.gguf import settings_from_gguf
from llm_engine.weights.settings.values import read_json_object

__all__ = ["DecoderSettings", "read_json_object", "settings_from_folder", "settings_from_gguf"]
