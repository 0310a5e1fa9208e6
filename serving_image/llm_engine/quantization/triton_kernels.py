"""Triton kernels that read a weight as it is kept: multiply by it, or decode it.

A weight [outs, inputs] is kept as int8 or e4m3 with a scale for each out (GROUP = 0) or for each
out and GROUP inputs, or as int4 (two inputs in a byte, the even one in the low half) with a scale
and an offset for each out and GROUP inputs: w = (code - 8) * scale + offset.
"""

import triton
import triton.language as tl


@triton.jit
def multiply_kernel(
    out,
    x,
    values,
    scale,
    offset,
    rows,
    outs,
    inputs,
    split_inputs,
    IS_INT4: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    OUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply one tile of x wT over one split of the inputs: grid (outs, rows, splits) in tiles.

    out     [splits, rows, outs]: in the dtype of x for one split, in fp32 for several
    x       [rows, inputs]; for int4 [2, rows, inputs / 2], the even inputs first
    values  [outs, inputs], or [outs, inputs / 2] bytes of int4
    """
    out_at = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    row_at = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(2)
    out_there, row_there = out_at < outs, row_at < rows
    begin = split * split_inputs
    end = tl.minimum(begin + split_inputs, inputs)
    x_rows = x + row_at.to(tl.int64)[:, None] * (inputs // 2 if IS_INT4 else inputs)
    total = tl.zeros([ROWS, OUTS], tl.float32)
    for start in range(begin, end, INPUTS):
        if IS_INT4:
            half = start // 2 + tl.arange(0, INPUTS // 2)
            half_there = half < end // 2
            bytes_at = out_at.to(tl.int64)[:, None] * (inputs // 2) + half[None, :]
            byte = tl.load(values + bytes_at, out_there[:, None] & half_there[None, :], other=0)
            groups = start // GROUP + tl.arange(0, INPUTS // GROUP)
            groups_at = out_at[:, None] * (inputs // GROUP) + groups[None, :]
            held = out_there[:, None] & (groups < end // GROUP)[None, :]
            step = tl.load(scale + groups_at, held, other=0.0).to(tl.float32)
            centre = tl.load(offset + groups_at, held, other=0.0).to(tl.float32)
            step = tl.broadcast_to(step[:, :, None], [OUTS, INPUTS // GROUP, GROUP // 2])
            centre = tl.broadcast_to(centre[:, :, None], [OUTS, INPUTS // GROUP, GROUP // 2])
            step = tl.reshape(step, [OUTS, INPUTS // 2])
            centre = tl.reshape(centre, [OUTS, INPUTS // 2])
            low = ((byte & 15).to(tl.float32) - 8.0) * step + centre
            high = ((byte >> 4).to(tl.float32) - 8.0) * step + centre
            mask = row_there[:, None] & half_there[None, :]
            even = tl.load(x_rows + half[None, :], mask, other=0.0)
            odd = tl.load(x_rows + rows * (inputs // 2) + half[None, :], mask, other=0.0)
            total = tl.dot(even, tl.trans(low.to(x.dtype.element_ty)), total, PRECISION)
            total = tl.dot(odd, tl.trans(high.to(x.dtype.element_ty)), total, PRECISION)
        else:
            at = start + tl.arange(0, INPUTS)
            there = at < end
            weights_at = out_at.to(tl.int64)[:, None] * inputs + at[None, :]
            weight = tl.load(values + weights_at, out_there[:, None] & there[None, :], other=0.0)
            part = tl.load(x_rows + at[None, :], row_there[:, None] & there[None, :], other=0.0)
            weight = tl.trans(weight.to(x.dtype.element_ty))
            if GROUP > 0:
                tl.static_assert(INPUTS == GROUP)
                groups_at = out_at * tl.cdiv(inputs, GROUP) + start // GROUP
                step = tl.load(scale + groups_at, out_there, other=0.0)
                total += tl.dot(part, weight, input_precision=PRECISION) * step[None, :]
            else:
                total = tl.dot(part, weight, total, PRECISION)
    if not IS_INT4 and GROUP == 0:
        total *= tl.load(scale + out_at, out_there, other=0.0)[None, :]
    target = (split.to(tl.int64) * rows + row_at)[:, None] * outs + out_at[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), row_there[:, None] & out_there[None, :])


@triton.jit
def decode_kernel(
    out,
    values,
    scale,
    offset,
    inputs,
    IS_INT4: tl.constexpr,
    GROUP: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """Decode INPUTS weights of one out: grid (outs, tiles of inputs); out [outs, inputs]."""
    out_at = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * INPUTS + tl.arange(0, INPUTS)
    there = at < inputs
    if IS_INT4:
        byte = tl.load(values + out_at * (inputs // 2) + at // 2, there, other=0).to(tl.int32)
        code = (byte >> (at % 2 * 4)) & 15
        group = out_at * (inputs // GROUP) + at // GROUP
        step = tl.load(scale + group, there, other=0.0).to(tl.float32)
        centre = tl.load(offset + group, there, other=0.0).to(tl.float32)
        weight = (code.to(tl.float32) - 8.0) * step + centre
    else:
        weight = tl.load(values + out_at * inputs + at, there, other=0.0).to(tl.float32)
        if GROUP > 0:
            group = out_at * tl.cdiv(inputs, GROUP) + at // GROUP
            weight *= tl.load(scale + group, there, other=0.0)
        else:
            weight *= tl.load(scale + out_at)
    tl.store(out + out_at * inputs + at, weight.to(out.dtype.element_ty), there)
