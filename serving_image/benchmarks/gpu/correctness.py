"""Kernels against plain attention, engines against transformers, linears against their weights."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch

from benchmarks.gpu.layouts import OF_CHECKPOINTS, QUANTIZERS
from benchmarks.gpu.sections import Row, Setting, Skipped
from benchmarks.parity import CONDITIONS, judge, make_reference
from benchmarks.tiny_models import FAMILIES
from llm_engine.attention.choice import make_attention, why_not
from llm_engine.contract.arguments import AttentionName
from llm_engine.contract.quantization import Quantization
from llm_engine.quantization.linear import make_linear
from llm_engine.quantization.weight import decoded
from tests.engine.attention_cases import CASES, TOLERANCES, make_step


def kernels(setting: Setting, name: str) -> Iterator[Row]:
    """Yield the largest error of one attention backend for each case of the contract test."""
    backend, device = AttentionName(name), torch.device(setting.device)
    reason = why_not(backend, device)
    if reason is not None:
        raise Skipped(reason)
    for text, case in CASES.items():
        if setting.device == "cpu" and name == "triton" and case.dtype == torch.bfloat16:
            continue  # the interpreter cannot
        began_s = time.perf_counter()
        step = make_step(case, device)
        out = step.run(make_attention(backend, step.cache, case.settings)).cpu().float()
        error = (out - step.exact).abs()
        allowed = TOLERANCES[case.dtype]
        yield {
            "case": text,
            "largest_error": float(error.max()),
            "relative_error": float(error.norm() / step.exact.norm()),
            "ok": bool((error <= allowed + allowed * step.exact.abs()).all()),
            "seconds": round(time.perf_counter() - began_s, 2),
        }


def parity(setting: Setting, dtype: str, attention: str) -> Iterator[Row]:
    """Yield, for each family and condition, how many greedy tokens are those of transformers."""
    families = list(FAMILIES)[:2] if setting.quick else list(FAMILIES)
    conditions = list(CONDITIONS) if attention == "triton" else ["chunked"]
    reason = why_not(AttentionName(attention), torch.device(setting.device))
    if reason is not None:
        raise Skipped(reason)
    torch.set_num_threads(2)  # of the reference, beside other sections
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            reference = make_reference(family, Path(folder))
            for model in (reference.exact, reference.rounded):
                model.set_attn_implementation("eager")  # others left soft caps out in 5.17
            for name in conditions:
                verdict = judge(
                    reference, dtype, CONDITIONS[name], setting.device, AttentionName(attention)
                )
                yield {"family": family, "condition": name, **asdict(verdict), "ok": verdict.passed}


def linears(setting: Setting) -> Iterator[Row]:
    """Yield the relative error of every layout against its own decoded weight."""
    shapes = ((96, 128),) if setting.quick else ((4096, 4096), (3072, 1024))
    for out_features, in_features in shapes:
        torch.manual_seed(3)
        exact = torch.randn(out_features, in_features, device=setting.device) * 0.05
        for name, quantize in chain(QUANTIZERS.items(), OF_CHECKPOINTS.items()):
            weight = quantize(exact.bfloat16())
            linear = make_linear(weight, Quantization.NONE)
            for rows in (1, 7, 64, 300):
                x = torch.randn(rows, in_features, device=setting.device).bfloat16()
                wanted = x.double() @ decoded(weight).double().T
                error = float((linear(x).double() - wanted).norm() / wanted.norm())
                yield {
                    "layout": name,
                    "shape": [out_features, in_features],
                    "rows": rows,
                    "relative_error": error,
                    "ok": error < 0.01,
                }
