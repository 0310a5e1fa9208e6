"""Every attention backend against plain attention over each request's whole text.

On a machine without a GPU the Triton kernels run in Triton's interpreter (tests/conftest.py).
"""

import pytest
import torch

from llm_engine.attention.choice import make_attention, why_not
from llm_engine.contract.arguments import AttentionName
from tests.engine.attention_cases import CASES, TOLERANCES, Case, make_step

BACKENDS = (
    AttentionName.TORCH,
    AttentionName.TRITON,
    AttentionName.XFORMERS,
    AttentionName.INVARIANT,
)
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("case", [pytest.param(case, id=text) for text, case in CASES.items()])
def test_a_backend_returns_what_plain_attention_returns(
    case: Case, name: AttentionName, device: str
) -> None:
    reason = why_not(name, torch.device(device))
    if reason is None and device == "cpu" and name is AttentionName.TRITON:
        reason = _not_interpreted(case)
    if reason is not None:
        pytest.skip(reason)
    step = make_step(case, torch.device(device))
    out = step.run(make_attention(name, step.cache, case.settings))
    allowed = TOLERANCES[case.dtype]
    torch.testing.assert_close(out.cpu().float(), step.exact, rtol=allowed, atol=allowed)


def _not_interpreted(case: Case) -> str | None:
    if case.dtype == torch.bfloat16:
        return "Triton's interpreter multiplies bf16 as if it were whole numbers"
    return None


@pytest.mark.parametrize("name", [AttentionName.TORCH, AttentionName.TRITON])
def test_keys_and_values_are_stored_where_the_tables_say(name: AttentionName) -> None:
    step = make_step(Case(), torch.device("cpu"))
    step.run(make_attention(name, step.cache, step.case.settings))
    slots = torch.tensor(step.batch.slots(0))
    blocks, offsets = slots // step.case.block_tokens, slots % step.case.block_tokens
    assert torch.equal(step.cache.slots[0][blocks, :, :, offsets], step.keys_values)
