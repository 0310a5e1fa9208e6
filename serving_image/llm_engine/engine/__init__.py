"""The engine: requests in, tokens out. Importing it does not import torch; loading a model does."""

from llm_engine.engine.engine import Engine
from llm_engine.engine.messages import (
    EngineStats,
    EngineStopped,
    GenerationRequest,
    RequestTimes,
    StepRecord,
    TokenEvent,
)
from llm_engine.sampling.parameters import SamplingParameters

__all__ = [
    "Engine",
    "EngineStats",
    "EngineStopped",
    "GenerationRequest",
    "RequestTimes",
    "SamplingParameters",
    "StepRecord",
    "TokenEvent",
]
