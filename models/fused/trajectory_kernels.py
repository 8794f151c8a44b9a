"""Eq. 1's kernels: flash attention with a softmax for each frame. Imported only where a kernel runs.

A program has one tile of queries of one head. N = F * P tokens; P is padded to whole tiles with masks. Scores are in
units of log2, so that exp2 serves; products are summed in float32.
"""

import triton
import triton.language as tl


@triton.jit
def product(one, other, WIDEN: tl.constexpr):
    """one @ other, summed in float32. WIDEN: Triton's interpreter multiplies the bits of bfloat16 as whole numbers."""
    if WIDEN:
        one, other = one.to(tl.float32), other.to(tl.float32)
    return tl.dot(one, other, input_precision="ieee")


@triton.jit
def _tile(pointer, rows, row_stride, channels, channel_stride, bound, width):
    """(rows, channels) of a matrix, 0 beyond `bound` rows and `width` channels."""
    return tl.load(pointer + rows[:, None] * row_stride + channels[None, :] * channel_stride,
                   mask=(rows[:, None] < bound) & (channels[None, :] < width), other=0.0)


@triton.jit
def forward(  # noqa: PLR0913 - a kernel's launch names every pointer, stride and size
        q, k, v, out, lse, q_b, q_h, q_n, q_d, k_b, k_h, k_f, k_p, k_d, v_b, v_h, v_f, v_p, v_d, heads, tokens,
        frames, places, width, scale,
        QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, WIDEN: tl.constexpr):
    """y~ (B, N, F, h, d) and the log2 of each softmax's sum (B, h, F, N)."""
    rows, channels = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    clip, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    clip, head = clip.to(tl.int64), head.to(tl.int64)
    queries = _tile(q + clip * q_b + head * q_h, rows, q_n, channels, q_d, tokens, width)
    for frame in range(frames):
        largest = tl.full((QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        mixed = tl.zeros((QUERIES, WIDTH), tl.float32)
        for start in range(0, places, KEYS):
            at = start + tl.arange(0, KEYS)
            keys = _tile(k + clip * k_b + head * k_h + frame * k_f, at, k_p, channels, k_d, places, width)
            values = _tile(v + clip * v_b + head * v_h + frame * v_f, at, v_p, channels, v_d, places, width)
            scores = product(queries, tl.trans(keys), WIDEN) * scale
            scores = tl.where(at[None, :] < places, scores, float("-inf"))
            new = tl.maximum(largest, tl.max(scores, axis=1))
            weights, fade = tl.exp2(scores - new[:, None]), tl.exp2(largest - new)
            total = total * fade + tl.sum(weights, axis=1)
            mixed = mixed * fade[:, None] + product(weights.to(values.dtype), values, WIDEN)
            largest = new
        mixed = mixed / total[:, None]
        place = ((clip * tokens + rows[:, None]) * frames + frame) * (heads * width) + head * width + channels[None, :]
        tl.store(out + place, mixed.to(out.dtype.element_ty),
                 mask=(rows[:, None] < tokens) & (channels[None, :] < width))
        tl.store(lse + ((clip * heads + head) * frames + frame) * tokens + rows, largest + tl.log2(total),
                 mask=rows < tokens)


@triton.jit
def backward_queries(  # noqa: PLR0913 - a kernel's launch names every pointer, stride and size
        q, k, v, out, d_out, lse, delta, d_q, q_b, q_h, q_n, q_d, k_b, k_h, k_f, k_p, k_d, v_b, v_h, v_f, v_p,
        v_d, heads, tokens, frames, places, width, scale, softmax_scale,
        QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, WIDEN: tl.constexpr):
    """dq (B, h, N, d), summed over the frames, and delta = sum_d dy~ y~ (B, h, F, N) for the other kernel."""
    rows, channels = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    clip, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    clip, head = clip.to(tl.int64), head.to(tl.int64)
    inside = (rows[:, None] < tokens) & (channels[None, :] < width)
    queries = _tile(q + clip * q_b + head * q_h, rows, q_n, channels, q_d, tokens, width)
    found = tl.zeros((QUERIES, WIDTH), tl.float32)
    for frame in range(frames):
        place = ((clip * tokens + rows[:, None]) * frames + frame) * (heads * width) + head * width + channels[None, :]
        gradient = tl.load(d_out + place, mask=inside, other=0.0)
        answer = tl.load(out + place, mask=inside, other=0.0)
        share = tl.sum(gradient.to(tl.float32) * answer.to(tl.float32), axis=1)
        line = ((clip * heads + head) * frames + frame) * tokens + rows
        tl.store(delta + line, share, mask=rows < tokens)
        sums = tl.load(lse + line, mask=rows < tokens, other=0.0)
        for start in range(0, places, KEYS):
            at = start + tl.arange(0, KEYS)
            keys = _tile(k + clip * k_b + head * k_h + frame * k_f, at, k_p, channels, k_d, places, width)
            values = _tile(v + clip * v_b + head * v_h + frame * v_f, at, v_p, channels, v_d, places, width)
            scores = product(queries, tl.trans(keys), WIDEN) * scale
            weights = tl.where(at[None, :] < places, tl.exp2(scores - sums[:, None]), 0.0)
            d_weights = product(gradient, tl.trans(values), WIDEN)
            d_scores = weights * (d_weights - share[:, None])
            found += product(d_scores.to(keys.dtype), keys, WIDEN)
    tl.store(d_q + ((clip * heads + head) * tokens + rows[:, None]) * width + channels[None, :],
             (found * softmax_scale).to(d_q.dtype.element_ty), mask=inside)


@triton.jit
def backward_keys(  # noqa: PLR0913 - a kernel's launch names every pointer, stride and size
        q, k, v, d_out, lse, delta, d_k, d_v, q_b, q_h, q_n, q_d, k_b, k_h, k_f, k_p, k_d, v_b, v_h, v_f, v_p,
        v_d, heads, tokens, frames, places, width, scale, softmax_scale,
        QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, WIDEN: tl.constexpr):
    """dk, dv (B, h, F, P, d) of one tile of keys of one frame, over all queries."""
    at, channels = tl.program_id(0) * KEYS + tl.arange(0, KEYS), tl.arange(0, WIDTH)
    frame, clip, head = tl.program_id(1), tl.program_id(2) // heads, tl.program_id(2) % heads
    clip, head = clip.to(tl.int64), head.to(tl.int64)
    keys = _tile(k + clip * k_b + head * k_h + frame * k_f, at, k_p, channels, k_d, places, width)
    values = _tile(v + clip * v_b + head * v_h + frame * v_f, at, v_p, channels, v_d, places, width)
    of_keys, of_values = tl.zeros((KEYS, WIDTH), tl.float32), tl.zeros((KEYS, WIDTH), tl.float32)
    for start in range(0, tokens, QUERIES):
        rows = start + tl.arange(0, QUERIES)
        queries = _tile(q + clip * q_b + head * q_h, rows, q_n, channels, q_d, tokens, width)
        base = (clip * tokens * frames + frame) * (heads * width) + head * width
        gradient = _tile(d_out + base, rows, frames * heads * width, channels, 1, tokens, width)
        line = ((clip * heads + head) * frames + frame) * tokens + rows
        sums = tl.load(lse + line, mask=rows < tokens, other=0.0)
        share = tl.load(delta + line, mask=rows < tokens, other=0.0)
        scores = product(keys, tl.trans(queries), WIDEN) * scale                 # (keys, queries)
        weights = tl.where(rows[None, :] < tokens, tl.exp2(scores - sums[None, :]), 0.0)
        of_values += product(weights.to(gradient.dtype), gradient, WIDEN)
        d_weights = product(values, tl.trans(gradient), WIDEN)
        d_scores = weights * (d_weights - share[None, :])
        of_keys += product(d_scores.to(queries.dtype), queries, WIDEN)
    place = (((clip * heads + head) * frames + frame) * places + at[:, None]) * width + channels[None, :]
    inside = (at[:, None] < places) & (channels[None, :] < width)
    tl.store(d_k + place, (of_keys * softmax_scale).to(d_k.dtype.element_ty), mask=inside)
    tl.store(d_v + place, of_values.to(d_v.dtype.element_ty), mask=inside)
