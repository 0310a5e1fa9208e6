"""Triton kernels of paged attention: store keys and values, attend, merge splits.

A tile is some query tokens of one request times the query heads that share a key-value head, as the
rows of a matrix product: `rows = token * GROUP + head`. So decoding (one token) and a prompt's
chunk (many) are the same kernel, and no key is read twice for the heads that share it.

Each tile is described by five numbers, `TILE_FIELDS`: its first row in the step, its tokens, the
position of the first of them in its text, where in `tables` the block of position 0 is (or would
be: blocks that slid out of a window were given back, and nothing reads before them), and the keys
of one split. A tile of no tokens does nothing.
"""

import triton
import triton.language as tl

TILE_FIELDS = tl.constexpr(5)


@triton.jit
def store_kernel(
    cache,
    keys_values,
    slots,
    BLOCK_TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    PADDED_DIM: tl.constexpr,
):
    """Copy one token's keys and values to its slot.

    cache        [blocks, HEADS, BLOCK_TOKENS, HEAD_DIM], where HEADS are the keys, then the values
    keys_values  [tokens, HEADS, HEAD_DIM]
    slots        int32 [tokens]: block * BLOCK_TOKENS + offset; below 0 for a row of no request
    """
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    first = slot // BLOCK_TOKENS * (HEADS * BLOCK_TOKENS) + slot % BLOCK_TOKENS
    heads = tl.arange(0, PADDED_HEADS)[:, None]
    dims = tl.arange(0, PADDED_DIM)[None, :]
    inside = (heads < HEADS) & (dims < HEAD_DIM)
    if slot >= 0:
        row = tl.load(keys_values + (token * HEADS + heads) * HEAD_DIM + dims, mask=inside)
        tl.store(cache + (first + heads * BLOCK_TOKENS) * HEAD_DIM + dims, row, mask=inside)


@triton.jit
def attend_kernel(
    out,
    weights,
    queries,
    cache,
    tables,
    tiles,
    query_stride,
    scale,
    cap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    WINDOW: tl.constexpr,
    HAS_CAP: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend with one tile of queries to one split of its keys: grid (tiles, KV_HEADS, splits).

    out           [tokens, KV_HEADS * GROUP, HEAD_DIM]; of splits, fp32
                  [tiles, KV_HEADS, splits, ROWS, PADDED_DIM]
    weights       of splits: fp32 [tiles, KV_HEADS, splits, ROWS], log2 of the sum of all weights
    queries       [tokens, KV_HEADS * GROUP, HEAD_DIM], tokens `query_stride` elements apart
    cache         [blocks, 2, KV_HEADS, BLOCK_TOKENS, HEAD_DIM]
    scale         what scores are multiplied by: to powers of 2, or by 1 / cap where they are capped
    cap           the cap, to powers of 2
    WINDOW        newest tokens that a query sees; 0: all
    """
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first_row = tl.load(tiles + tile * TILE_FIELDS)
    tokens = tl.load(tiles + tile * TILE_FIELDS + 1)
    position = tl.load(tiles + tile * TILE_FIELDS + 2)
    table = tl.load(tiles + tile * TILE_FIELDS + 3)
    split_tokens = tl.load(tiles + tile * TILE_FIELDS + 4)

    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_DIM)
    token = rows // GROUP
    heads = kv_head * GROUP + rows % GROUP
    held = (token < tokens)[:, None] & (dims < HEAD_DIM)[None, :]
    sources = (first_row + token).to(tl.int64) * query_stride + heads * HEAD_DIM
    query = tl.load(queries + sources[:, None] + dims[None, :], mask=held, other=0.0)

    seen_from = 0
    if WINDOW > 0:
        seen_from = tl.maximum(position - WINDOW + 1, 0)
    begin = seen_from + split * split_tokens
    end = tl.minimum(begin + split_tokens, position + tokens)
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(begin, end, KEYS):
        keys_at = start + tl.arange(0, KEYS)
        there = keys_at < end
        blocks = tl.load(tables + table + keys_at // BLOCK_TOKENS, mask=there, other=0)
        pieces = blocks.to(tl.int64) * (2 * KV_HEADS) + kv_head
        key_rows = (pieces * BLOCK_TOKENS + keys_at % BLOCK_TOKENS) * HEAD_DIM
        read = there[:, None] & (dims < HEAD_DIM)[None, :]
        key = tl.load(cache + key_rows[:, None] + dims[None, :], mask=read, other=0.0)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        if HAS_CAP:
            scores = cap * (2 * tl.sigmoid(2 * scores) - 1)  # cap * tanh(scores)
        seen = there[None, :] & (keys_at[None, :] <= (position + token)[:, None])
        if WINDOW > 0:
            seen = seen & (keys_at[None, :] > (position + token - WINDOW)[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        # A row that has seen nothing yet keeps -inf: subtract 0 from it instead, for 0 and no NaN.
        above = tl.maximum(most, tl.max(scores, 1))
        reference = tl.where(above == float("-inf"), 0.0, above)
        exponentials = tl.exp2(scores - reference[:, None])
        shrink = tl.exp2(most - reference)
        total = total * shrink + tl.sum(exponentials, 1)
        value_rows = key_rows + KV_HEADS * BLOCK_TOKENS * HEAD_DIM
        value = tl.load(cache + value_rows[:, None] + dims[None, :], mask=read, other=0.0)
        summed = tl.dot(
            exponentials.to(value.dtype),
            value,
            summed * shrink[:, None],
            input_precision=PRECISION,
        )
        most = above

    nothing = total == 0.0  # padding rows, and splits beyond a text's end
    mean = summed / tl.where(nothing, 1.0, total)[:, None]
    if IS_SPLIT:
        part = ((tile * KV_HEADS + kv_head) * tl.num_programs(2) + split).to(tl.int64)
        tl.store(weights + part * ROWS + rows, most + tl.log2(tl.where(nothing, 1.0, total)))
        targets = (part * ROWS + rows)[:, None] * PADDED_DIM + dims[None, :]
        tl.store(out + targets, mean)
    else:
        targets = ((first_row + token).to(tl.int64) * (KV_HEADS * GROUP) + heads) * HEAD_DIM
        tl.store(out + targets[:, None] + dims[None, :], mean.to(out.dtype.element_ty), mask=held)


@triton.jit(do_not_specialize=["splits"])
def merge_kernel(
    out,
    parts,
    weights,
    tiles,
    splits,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):
    """Weigh one row's splits against each other: grid (tiles, KV_HEADS, ROWS).

    out             [tokens, KV_HEADS * GROUP, HEAD_DIM]
    parts, weights  what `attend_kernel` left of its splits
    """
    tile, kv_head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first_row = tl.load(tiles + tile * TILE_FIELDS)
    tokens = tl.load(tiles + tile * TILE_FIELDS + 1)
    if row < tokens * GROUP:
        split = tl.arange(0, PADDED_SPLITS)
        dims = tl.arange(0, PADDED_DIM)
        part = (((tile * KV_HEADS + kv_head) * splits + split) * ROWS + row).to(tl.int64)
        logs = tl.load(weights + part, mask=split < splits, other=float("-inf"))
        share = tl.exp2(logs - tl.max(logs, 0))  # every row sees itself: one of them is finite
        read = (share > 0.0)[:, None] & (dims < HEAD_DIM)[None, :]
        mean = tl.load(parts + part[:, None] * PADDED_DIM + dims[None, :], mask=read, other=0.0)
        merged = tl.sum(mean * share[:, None], 0) / tl.sum(share, 0)
        head = kv_head * GROUP + row % GROUP
        target = ((first_row + row // GROUP).to(tl.int64) * (KV_HEADS * GROUP) + head) * HEAD_DIM
        tl.store(out + target + dims, merged.to(out.dtype.element_ty), mask=dims < HEAD_DIM)
