"""Eq. 2's kernels. Imported only where a kernel runs.

A row is a token with its trajectory, (F, D). What stands between a row and its answer, (h, D) a row, is made tile by
tile on the chip. Products with weights go through the matrix units, those with a row's own trajectory do not: they are
too small. Sums are float32.

R: rows, F: frames, D: width, h: heads, d = D / h.
"""

import triton
import triton.language as tl

from .trajectory_kernels import product


@triton.jit
def pool(  # noqa: PLR0913 - a kernel's launch names every pointer, stride and size
        left, trajectories, first_weight, second_weight, weights, d_scores, found, total_rows, frames, heads,
        width, scale, BACKWARD: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, FRAMES: tl.constexpr,
        WIDTH: tl.constexpr, CHANNELS: tl.constexpr, WIDEN: tl.constexpr):
    """Of HEADS heads and ROWS rows: coefficients = f((left W_1) . y~), found = (sum coefficients y~) W_2^T.

    Forward: left is q~, W_1 = W_k, f the softmax over frames, W_2 = W_v; found is Eq. 2. Backward: left is the gradient
    of that, W_1 = W_v, f the gradient of the softmax, W_2 = W_k; found is the gradient of q~.
    """
    dim = heads * width
    rows = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    head, channel, frame = tl.program_id(0) * HEADS + tl.arange(0, HEADS), tl.arange(0, WIDTH), tl.arange(0, FRAMES)
    here = rows < total_rows
    own = head[:, None, None] * width + channel[None, None, :]   # (HEADS, 1, WIDTH)
    inside = here[None, :, None] & (channel[None, None, :] < width)
    projected = tl.load(left + rows[None, :, None] * dim + own, mask=inside, other=0.0)   # (HEADS, ROWS, WIDTH)
    scores = tl.zeros((HEADS, ROWS, FRAMES), tl.float32)
    weight_rows = head[:, None, None] * width + channel[None, :, None]
    for start in range(0, dim, CHANNELS):
        column = start + tl.arange(0, CHANNELS)
        weight = tl.load(first_weight + weight_rows.to(tl.int64) * dim + column[None, None, :],
                         mask=(channel[None, :, None] < width) & (column[None, None, :] < dim), other=0.0)
        absorbed = product(projected, weight, WIDEN)   # (HEADS, ROWS, CHANNELS)
        for at in range(frames):
            along = tl.load(trajectories + (rows[:, None] * frames + at) * dim + column[None, :],
                            mask=here[:, None] & (column[None, :] < dim), other=0.0).to(tl.float32)
            score = tl.sum(absorbed * along[None, :, :], axis=2)
            scores += tl.where(frame[None, None, :] == at, score[:, :, None], 0.0)
    place = (rows[None, :, None] * heads + head[:, None, None]) * frames + frame[None, None, :]
    known = here[None, :, None] & (frame[None, None, :] < frames)
    if BACKWARD:
        shares = tl.load(weights + place, mask=known, other=0.0)
        coefficients = shares * (scores - tl.sum(shares * scores, axis=2)[:, :, None]) * scale
        tl.store(d_scores + place, coefficients, mask=known)
    else:
        scores = tl.where(frame[None, None, :] < frames, scores * scale, float("-inf"))
        coefficients = tl.exp(scores - tl.max(scores, axis=2)[:, :, None])
        coefficients = coefficients / tl.sum(coefficients, axis=2)[:, :, None]
        tl.store(weights + place, coefficients, mask=known)
    answer = tl.zeros((HEADS, ROWS, WIDTH), tl.float32)
    weight_rows = head[:, None, None] * width + channel[None, None, :]
    for start in range(0, dim, CHANNELS):
        column = start + tl.arange(0, CHANNELS)
        mixed = tl.zeros((HEADS, ROWS, CHANNELS), tl.float32)
        for at in range(frames):
            along = tl.load(trajectories + (rows[:, None] * frames + at) * dim + column[None, :],
                            mask=here[:, None] & (column[None, :] < dim), other=0.0).to(tl.float32)
            share = tl.sum(tl.where(frame[None, None, :] == at, coefficients, 0.0), axis=2)
            mixed += share[:, :, None] * along[None, :, :]
        weight = tl.load(second_weight + weight_rows.to(tl.int64) * dim + column[None, :, None],
                         mask=(channel[None, None, :] < width) & (column[None, :, None] < dim), other=0.0)
        answer += product(mixed.to(weight.dtype), weight, WIDEN)
    tl.store(found + rows[None, :, None] * dim + own, answer.to(found.dtype.element_ty), mask=inside)


@triton.jit
def backward_trajectories(  # noqa: PLR0913 - a kernel's launch names every pointer, stride and size
        queries, gradient, key_weight, value_weight, weights, d_scores, d_trajectories, total_rows, frames,
        heads, width,
        ROWS: tl.constexpr, FRAMES: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, WIDEN: tl.constexpr):
    """dy~ = sum over heads of dS (q~ W_k) + a (dy W_v), a tile of channels of ROWS rows."""
    dim = heads * width
    rows = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    channel, frame = tl.arange(0, WIDTH), tl.arange(0, FRAMES)
    here = rows < total_rows
    known = here[:, None] & (frame[None, :] < frames)
    found = tl.zeros((ROWS, FRAMES, CHANNELS), tl.float32)
    for head in range(heads):
        inside = here[:, None] & (channel[None, :] < width)
        left = rows[:, None] * dim + head * width + channel[None, :]
        right = (head * width + channel[:, None]).to(tl.int64) * dim + column[None, :]
        fits = (channel[:, None] < width) & (column[None, :] < dim)
        absorbed = product(tl.load(queries + left, mask=inside, other=0.0),
                          tl.load(key_weight + right, mask=fits, other=0.0), WIDEN)
        d_mixed = product(tl.load(gradient + left, mask=inside, other=0.0),
                         tl.load(value_weight + right, mask=fits, other=0.0), WIDEN)
        place = (rows[:, None] * heads + head) * frames + frame[None, :]
        d_score = tl.load(d_scores + place, mask=known, other=0.0)
        share = tl.load(weights + place, mask=known, other=0.0)
        found += d_score[:, :, None] * absorbed[:, None, :] + share[:, :, None] * d_mixed[:, None, :]
    place = (rows[:, None, None] * frames + frame[None, :, None]) * dim + column[None, None, :]
    tl.store(d_trajectories + place, found.to(d_trajectories.dtype.element_ty),
             mask=known[:, :, None] & (column[None, None, :] < dim))


@triton.jit
def backward_weights(  # noqa: PLR0913 - a kernel's launch names every pointer, stride and size
        queries, gradient, trajectories, weights, d_scores, partial, total_rows, rows_each, frames, heads,
        width,
        ROWS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, WIDEN: tl.constexpr):
    """dW_k = q~^T (sum dS y~) and dW_v = dy^T (sum a y~) of HEADS heads, a tile of channels and `rows_each` rows:
    partial (splits, 2, D, D)."""
    dim = heads * width
    head, channel = tl.program_id(0) * HEADS + tl.arange(0, HEADS), tl.arange(0, WIDTH)
    column = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    begin = tl.program_id(2).to(tl.int64) * rows_each
    of_keys = tl.zeros((HEADS, WIDTH, CHANNELS), tl.float32)
    of_values = tl.zeros((HEADS, WIDTH, CHANNELS), tl.float32)
    for start in range(0, rows_each, ROWS):
        rows = begin + start + tl.arange(0, ROWS)
        here = rows < total_rows
        d_absorbed = tl.zeros((HEADS, ROWS, CHANNELS), tl.float32)
        mixed = tl.zeros((HEADS, ROWS, CHANNELS), tl.float32)
        for at in range(frames):
            along = tl.load(trajectories + (rows[:, None] * frames + at) * dim + column[None, :],
                            mask=here[:, None] & (column[None, :] < dim), other=0.0).to(tl.float32)
            place = (rows[None, :] * heads + head[:, None]) * frames + at
            d_score = tl.load(d_scores + place, mask=here[None, :], other=0.0)
            share = tl.load(weights + place, mask=here[None, :], other=0.0)
            d_absorbed += d_score[:, :, None] * along[None, :, :]
            mixed += share[:, :, None] * along[None, :, :]
        left = rows[None, None, :] * dim + head[:, None, None] * width + channel[None, :, None]   # (HEADS, WIDTH, ROWS)
        inside = here[None, None, :] & (channel[None, :, None] < width)
        query = tl.load(queries + left, mask=inside, other=0.0)
        of_keys += product(query, d_absorbed.to(query.dtype), WIDEN)
        of_values += product(tl.load(gradient + left, mask=inside, other=0.0), mixed.to(query.dtype),
                            WIDEN)
    place = (head[:, None, None] * width + channel[None, :, None]).to(tl.int64) * dim + column[None, None, :]
    place += tl.program_id(2).to(tl.int64) * 2 * dim * dim
    inside = (channel[None, :, None] < width) & (column[None, None, :] < dim)
    tl.store(partial + place, of_keys, mask=inside)
    tl.store(partial + dim * dim + place, of_values, mask=inside)
