"""How many replicas: samples -> load -> learned capacity -> a decision that explains itself.

Pure: no clock, no I/O. `load_of` sums samples up, `decide_replicas` decides.
"""

from llm_operator.scaling.findings import Finding
from llm_operator.scaling.load import Load, Replica, load_of
from llm_operator.scaling.replicas import ScalingDecision, decide_replicas
from llm_operator.scaling.rule import ScalingRule, rule_of
from llm_operator.scaling.samples import Samples
from llm_operator.scaling.state import ScalingState

__all__ = [
    "Finding",
    "Load",
    "Replica",
    "Samples",
    "ScalingDecision",
    "ScalingRule",
    "ScalingState",
    "decide_replicas",
    "load_of",
    "rule_of",
]
