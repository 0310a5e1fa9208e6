"""Which accelerator: the cheapest of the allowed ones in which the model fits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Final

from llm_engine.contract.quantization import Quantization
from llm_engine.contract.shape import ModelShape
from llm_operator.api.deployment_spec import LLMDeploymentSpec
from llm_operator.api.parsing import AcceleratorClass
from llm_operator.api.scalars import quantity
from llm_operator.planner.memory import Memory, MemoryFit, memory_fit

CPU: Final = "cpu"
CPU_DTYPE_BYTES: Final = 4  # fp32; on a CPU that multiplies bf16 it fits all the more
ACCELERATOR_DTYPE_BYTES: Final = 2  # bf16
_SHOWN: Final = 3
_NOT_NAMED: Final = "not among spec.hardware.accelerators"


class ChoiceReason(StrEnum):
    """The outcome in one CamelCase word, used as a condition's reason."""

    FITS = "Fits"
    CONTEXT_TOO_LONG = "ContextTooLong"
    NO_ACCELERATOR = "NoAccelerator"
    DOES_NOT_FIT = "DoesNotFit"


@dataclass(frozen=True)
class Choice:
    """The accelerator to run on, or why there is none.

    accelerator  None where nothing fits
    fit          how the model fits it, or the nearest miss
    because      the whole in words, with numbers
    rejected     why not, by the name of each other class that was looked at
    """

    reason: ChoiceReason
    accelerator: AcceleratorClass | None
    fit: MemoryFit | None
    because: str
    rejected: Mapping[str, str] = field(default_factory=dict)


def choose(
    spec: LLMDeploymentSpec, shape: ModelShape, classes: Iterable[AcceleratorClass]
) -> Choice:
    """Choose the cheapest allowed class in which the model fits; one without a price comes last.

    Allowed are the classes that spec.hardware.accelerators names, nodes or not, for a cluster may
    grow; where it names none, those of which the cluster has nodes.
    """
    context_tokens = spec.model.max_context_tokens or shape.context_tokens
    if context_tokens > shape.context_tokens:
        because = (
            f"spec.model.maxContextTokens is {context_tokens:,}, but the model was trained for"
            f" {shape.context_tokens:,}: ask for at most that"
        )
        return Choice(ChoiceReason.CONTEXT_TOO_LONG, None, None, because)

    candidates, rejected = _allowed(spec.hardware.accelerators, classes)
    looked_at: list[tuple[AcceleratorClass, MemoryFit]] = []
    for each in sorted(candidates, key=_price_rank):
        memory = memory_of(each, spec)
        if memory is None:
            rejected[each.name] = "how much memory it has is unknown: set its spec.memory"
            continue
        fit = memory_fit(shape, spec.quantization, context_tokens, memory)
        looked_at.append((each, fit))
        if not fit.fits:
            rejected[each.name] = fit.because
    fitting = [(each, fit) for each, fit in looked_at if fit.fits]
    if not fitting:
        if not looked_at:
            return _no_accelerator(rejected)
        return _nearest_miss(looked_at, spec.quantization, rejected)

    (chosen, fit), *dearer = fitting
    rejected |= {
        each.name: f"costs {_price(each)}, {chosen.name} {_price(chosen)}" for each, _ in dearer
    }
    because = f"{chosen.name}: {fit.because}"
    if dearer:
        because += f"; at {_price(chosen)} the cheapest of {len(fitting)} that fit"
    return Choice(ChoiceReason.FITS, chosen, fit, because, rejected)


def memory_of(accelerator: AcceleratorClass, spec: LLMDeploymentSpec) -> Memory | None:
    """Return the memory that one replica finds; None where nobody has said how much.

    On the CPU it is the container's: its limit, else its request, else what the class says.
    """
    declared = accelerator.spec.memory_bytes
    if accelerator.spec.resource_name != CPU:
        if declared is None:
            return None
        return accelerator_memory(declared)
    resources = spec.template.resources
    asked = next(
        (part.memory for part in (resources.limits, resources.requests) if part and part.memory),
        None,
    )
    total = int(quantity(asked)) if asked else declared
    return cpu_memory(total) if total else None


def accelerator_memory(total_bytes: int) -> Memory:
    """Return the memory of an accelerator, with what the engine does there."""
    return Memory(total_bytes, device="cuda", dtype_bytes=ACCELERATOR_DTYPE_BYTES)


def cpu_memory(total_bytes: int) -> Memory:
    """Return the memory of a container without accelerator, with what the engine does there."""
    return Memory(total_bytes, device=CPU, dtype_bytes=CPU_DTYPE_BYTES)


def _allowed(
    named: list[str], classes: Iterable[AcceleratorClass]
) -> tuple[list[AcceleratorClass], dict[str, str]]:
    """Split the classes into those that may be chosen and why the others may not."""
    candidates: list[AcceleratorClass] = []
    rejected: dict[str, str] = {}
    known = {each.name: each for each in sorted(classes, key=lambda each: each.name)}
    for name in named:
        if name not in known:
            rejected[name] = "there is no AcceleratorClass of this name"
    for name, each in known.items():
        if named and name not in named:
            rejected[name] = _NOT_NAMED
        elif not named and not each.status.nodes:
            rejected[name] = "no node of the cluster has it"
        else:
            candidates.append(each)
    return candidates, rejected


def _no_accelerator(rejected: Mapping[str, str]) -> Choice:
    """Return the choice of none where no class may be chosen."""
    names_by_why: dict[str, list[str]] = {}
    for name, why in rejected.items():
        if why != _NOT_NAMED:
            names_by_why.setdefault(why, []).append(name)
    told = [f"{why} ({_some(names)})" for why, names in names_by_why.items()]
    because = f"no AcceleratorClass can be chosen: {'; '.join(told) or 'the cluster has none'}"
    return Choice(ChoiceReason.NO_ACCELERATOR, None, None, because, rejected)


def _some(names: list[str]) -> str:
    """Write the first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _nearest_miss(
    looked_at: Iterable[tuple[AcceleratorClass, MemoryFit]],
    quantization: Quantization,
    rejected: Mapping[str, str],
) -> Choice:
    """Return the choice of none where nothing fits: what is nearest, what would have to give."""
    nearest, fit = min(looked_at, key=lambda pair: pair[1].missing_bytes)
    advice = ["lower spec.model.maxContextTokens"]
    if quantization is Quantization.NONE:
        advice.append("set spec.quantization to Int8")
    elif quantization is not Quantization.INT4:
        advice.append("set spec.quantization to Int4")
    if nearest.spec.resource_name == CPU:
        advice.append("raise spec.template.resources.limits.memory")
    else:
        advice.append("allow an accelerator with more memory")
    because = (
        f"fits no allowed AcceleratorClass; nearest is {nearest.name}: {fit.because};"
        f" {', '.join(advice[:-1])} or {advice[-1]}"
    )
    return Choice(ChoiceReason.DOES_NOT_FIT, None, fit, because, rejected)


def _price_rank(accelerator: AcceleratorClass) -> tuple[bool, Decimal, str]:
    """Order by price, those without one last, and by name among equals."""
    per_h = accelerator.spec.price.per_h
    return (per_h is None, per_h or Decimal(0), accelerator.name)


def _price(accelerator: AcceleratorClass) -> str:
    price = accelerator.spec.price
    return "no stated price" if price.per_h is None else f"{price.per_h} {price.currency}/h"
