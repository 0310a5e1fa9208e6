"""What one process remembers of an LLMDeployment between two looks; losing it costs nothing."""

from dataclasses import dataclass

from llm_operator.reconcile.trouble import Trouble
from llm_operator.scaling import ScalingState


@dataclass
class Memory:
    """Everything here is either in the status too, or soon found out again.

    obstacle    why the API server refused the last action
    reported_s  Unix time at which the status was last written
    """

    scaling: ScalingState | None = None
    obstacle: Trouble | None = None
    reported_s: float | None = None
