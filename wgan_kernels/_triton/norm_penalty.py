"""p_i = (‖grad_i‖₂ − target)², reduced over the rows of [rows, width] memory, and its derivative.

Forward in two launches: sums of squares by (row, chunk), then one small kernel for norms and penalty. No atomics: the
result is the same in every run.
"""

import torch
import triton
import triton.language as tl

from .._layout import compute_dtype
from ._launch import kernel, rounded, tile, tiles, widened

_NONE = tl.constexpr(0)
_MEAN = tl.constexpr(1)
# The second kernel's tile of partial sums, [_FINISH // chunks, chunks] or [1, _FINISH].
_FINISH = 512


@kernel
def square_sum_kernel(
    grad_ptr,
    partial_ptr,
    rows: tl.int64,
    units: tl.int64,
    chunks: tl.int32,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """partial_ic = Σ_j grad_ij² over the j of chunk c, in the compute type.

    grad: [rows, width]; partial: [rows, chunks] in float64.
    """
    row, chunk, offset, mask = tile(rows, units, chunks, UNIT, ROWS, COLS)
    grad = widened(tl.load(grad_ptr + offset, mask=mask, other=0))
    square = tl.sum(grad * grad, axis=1, keep_dims=True)
    tl.store(partial_ptr + row * chunks + chunk, square.to(tl.float64), mask=row < rows)


@kernel
def norm_penalty_kernel(
    partial_ptr,
    norm_ptr,
    penalty_ptr,
    target: tl.float64,
    rows: tl.int64,
    chunks: tl.int32,
    ONE_SIDED: tl.constexpr,
    REDUCTION: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """n_i = √Σ_c partial_ic, p_i = (n_i − target)² or max(0, n_i − target)²; penalty = p, Σp/rows or Σp.

    partial: [rows, chunks] in float64; norm: [rows] in the compute type; penalty: [rows] or []. A reduction over rows
    is one program's, in order and in float64.
    """
    goal = tl.full((), target, tl.float64).to(norm_ptr.dtype.element_ty)
    total = tl.zeros((ROWS,), tl.float64)
    for first in range(tl.program_id(0).to(tl.int64) * ROWS, rows, tl.num_programs(0).to(tl.int64) * ROWS):
        row = first + tl.arange(0, ROWS)
        square = tl.zeros((ROWS,), tl.float64)
        for start in range(0, chunks, CHUNKS):
            chunk = start + tl.arange(0, CHUNKS)[None, :]
            mask = (row[:, None] < rows) & (chunk < chunks)
            square += tl.sum(tl.load(partial_ptr + row[:, None] * chunks + chunk, mask=mask, other=0), axis=1)
        norm = tl.sqrt(square).to(norm_ptr.dtype.element_ty)
        tl.store(norm_ptr + row, norm, mask=row < rows)
        excess = norm - goal
        penalty = excess * excess
        if ONE_SIDED:
            penalty = tl.where(excess < 0, 0, penalty)
        if REDUCTION == _NONE:
            tl.store(penalty_ptr + row, rounded(penalty, penalty_ptr.dtype.element_ty), mask=row < rows)
        else:
            total += tl.where(row < rows, penalty, 0).to(tl.float64)
    if REDUCTION != _NONE:
        result = tl.sum(total)
        if REDUCTION == _MEAN:
            result = result / rows.to(tl.float64)
        tl.store(penalty_ptr, rounded(result, penalty_ptr.dtype.element_ty))


@kernel
def norm_penalty_bwd_kernel(
    penalty_grad_ptr,
    grad_ptr,
    norm_ptr,
    out_ptr,
    target: tl.float64,
    rows: tl.int64,
    units: tl.int64,
    chunks: tl.int32,
    ONE_SIDED: tl.constexpr,
    REDUCTION: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """out_ij = s_i·2·(n_i − target)/n_i·grad_ij, 0 where n_i = 0; s = penalty_grad, for a mean /rows.

    grad, out: [rows, width]; norm n: [rows] in the compute type; penalty_grad: [rows] or [].
    """
    row, _, offset, mask = tile(rows, units, chunks, UNIT, ROWS, COLS)
    norm = tl.load(norm_ptr + row, mask=row < rows)
    excess = norm - tl.full((), target, tl.float64).to(norm.dtype)
    idle = norm == 0
    if ONE_SIDED:
        idle = idle | (excess < 0)
    factor = tl.where(idle, 0, 2 * excess / tl.where(idle, 1, norm))
    if REDUCTION == _NONE:
        share = tl.load(penalty_grad_ptr + row, mask=row < rows)
    else:
        share = tl.load(penalty_grad_ptr)
    factor = factor * widened(share)
    if REDUCTION == _MEAN:
        factor = factor / rows.to(norm.dtype)
    grad = tl.load(grad_ptr + offset, mask=mask).to(norm.dtype)
    tl.store(out_ptr + offset, rounded(factor * grad, out_ptr.dtype.element_ty), mask=mask)


def norm_penalty_fwd(grad, target, one_sided, reduction):
    """grad: [B, …] → penalty: [B] (none) or [] in grad's dtype, norm: [B] in the compute type."""
    rows = grad.shape[0]
    norm = grad.new_empty(rows, dtype=compute_dtype(grad.dtype))
    penalty = grad.new_empty(rows if reduction == _NONE.value else ())
    if penalty.numel() == 0:
        return penalty, norm
    with torch.cuda.device_of(grad):
        chunks = 0
        partial = norm  # of which nothing is read where there are no chunks
        if grad.numel():
            cut = tiles(grad)
            chunks = cut.chunks
            partial = grad.new_empty((rows, chunks), dtype=torch.float64)
            square_sum_kernel[(cut.programs,)](grad, partial, **cut.arguments)
        chunks_at_once = min(triton.next_power_of_2(max(chunks, 1)), _FINISH)
        rows_at_once = _FINISH // chunks_at_once
        programs = triton.cdiv(rows, rows_at_once) if reduction == _NONE.value else 1
        norm_penalty_kernel[(programs,)](
            partial,
            norm,
            penalty,
            target,
            rows,
            chunks,
            ONE_SIDED=one_sided,
            REDUCTION=reduction,
            ROWS=rows_at_once,
            CHUNKS=chunks_at_once,
        )
    return penalty, norm


def norm_penalty_bwd(penalty_grad, grad, norm, target, one_sided, reduction):
    """penalty_grad: like the penalty; grad: [B, …]; norm: [B] in the compute type → d/d grad: [B, …]."""
    out = torch.empty_like(grad)
    if grad.numel():
        cut = tiles(grad)
        with torch.cuda.device_of(grad):
            norm_penalty_bwd_kernel[(cut.programs,)](
                penalty_grad, grad, norm, out, target, ONE_SIDED=one_sided, REDUCTION=reduction, **cut.arguments
            )
    return out
