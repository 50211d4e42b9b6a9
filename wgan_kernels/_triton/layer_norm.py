"""y = (x − μ)·r·w + b over the rows of [rows, width] memory, its derivative, and the derivative of that.

One launch each, and one or two more for the gradients of the weights, without atomics. Formulas: ``rules/norm.py``.
"""

import torch
import triton
import triton.language as tl

from .._layout import compute_dtype
from ._launch import Tiles, kernel, rounded, widened

# Bytes of a tile in the compute type: 32 of each array in each of 128 threads, so that sums of them fit in registers.
_TILE = 4096
# The weights whose gradients one program sums at once, and over how many samples.
_WEIGHTS = 256
_SPAN = 64


@triton.jit
def place(rows, sets, units, UNIT: tl.constexpr, ROWS: tl.constexpr):
    """This program's (row [ROWS, 1], where it starts, where its weights start, width, row < rows)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    width = units * UNIT
    return row, row * width, row % sets * width, width, row < rows


@triton.jit
def loaded(ptr, offset, mask):
    """[ROWS, COLS] in the compute type, 0 outside."""
    return widened(tl.load(ptr + offset, mask=mask, other=0))


@triton.jit
def averaged(total, width, CENTERED: tl.constexpr = True):
    """Σ over each row of a tile of sums, divided by width, [ROWS, 1] in float64; 0 unless CENTERED."""
    mean = tl.sum(total, axis=1, keep_dims=True).to(tl.float64) / width.to(tl.float64)
    return mean if CENTERED else tl.zeros_like(mean)


@triton.jit
def weighted(x, w_ptr, offset, mask):
    """x·w; x itself where w is None."""
    return x if w_ptr is None else x * loaded(w_ptr, offset, mask)


@kernel
def layer_norm_fwd_kernel(
    x_ptr,
    w_ptr,
    b_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    eps: tl.float64,
    sets: tl.int64,
    rows: tl.int64,
    units: tl.int64,
    CENTERED: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """y = (x − μ)·r·w + b, r = 1/√(mean (x − μ)² + eps). x, y: [rows, width]; w, b: [sets, width]; μ, r: [rows].

    The variance is about the mean; what rounding has left of that is taken out.
    """
    compute: tl.constexpr = mean_ptr.dtype.element_ty
    row, start, of_set, width, exists = place(rows, sets, units, UNIT, ROWS)
    total = tl.zeros((ROWS, COLS), compute)
    if CENTERED:
        for first in range(0, width, COLS):
            col = first + tl.arange(0, COLS)[None, :]
            total += loaded(x_ptr, start + col, exists & (col < width))
    mean = averaged(total, width).to(compute)
    rest, squares = tl.zeros((ROWS, COLS), compute), tl.zeros((ROWS, COLS), compute)
    for first in range(0, width, COLS):
        col = first + tl.arange(0, COLS)[None, :]
        mask = exists & (col < width)
        d = tl.where(mask, loaded(x_ptr, start + col, mask) - mean, 0)
        rest += d
        squares += d * d
    left = averaged(rest, width, CENTERED)
    variance = averaged(squares, width) - left * left
    rstd = (1 / tl.sqrt(tl.where(variance < 0, 0, variance) + tl.full((), eps, tl.float64))).to(compute)
    tl.store(mean_ptr + row, mean, mask=exists)
    tl.store(rstd_ptr + row, rstd, mask=exists)
    for first in range(0, width, COLS):
        col = first + tl.arange(0, COLS)[None, :]
        mask = exists & (col < width)
        y = weighted((loaded(x_ptr, start + col, mask) - mean) * rstd, w_ptr, of_set + col, mask)
        if b_ptr is not None:
            y += loaded(b_ptr, of_set + col, mask)
        tl.store(y_ptr + start + col, rounded(y, y_ptr.dtype.element_ty), mask=mask)


@kernel
def layer_norm_bwd_kernel(
    delta_ptr,
    x_ptr,
    w_ptr,
    mean_ptr,
    rstd_ptr,
    out_ptr,
    sets: tl.int64,
    rows: tl.int64,
    units: tl.int64,
    CENTERED: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """out = r·(g − mean(g) − x̂·mean(g·x̂)), g = δ·w. delta, x, out: [rows, width]; w: [sets, width]; μ, r: [rows]."""
    compute: tl.constexpr = mean_ptr.dtype.element_ty
    row, start, of_set, width, exists = place(rows, sets, units, UNIT, ROWS)
    mean, rstd = tl.load(mean_ptr + row, mask=exists), tl.load(rstd_ptr + row, mask=exists)
    g_total, gx_total = tl.zeros((ROWS, COLS), compute), tl.zeros((ROWS, COLS), compute)
    for first in range(0, width, COLS):
        col = first + tl.arange(0, COLS)[None, :]
        mask = exists & (col < width)
        g = weighted(loaded(delta_ptr, start + col, mask), w_ptr, of_set + col, mask)
        g_total += g
        gx_total += tl.where(mask, g * ((loaded(x_ptr, start + col, mask) - mean) * rstd), 0)
    g_mean, gx_mean = averaged(g_total, width, CENTERED).to(compute), averaged(gx_total, width).to(compute)
    for first in range(0, width, COLS):
        col = first + tl.arange(0, COLS)[None, :]
        mask = exists & (col < width)
        g = weighted(loaded(delta_ptr, start + col, mask), w_ptr, of_set + col, mask)
        out = rstd * (g - g_mean - (loaded(x_ptr, start + col, mask) - mean) * rstd * gx_mean)
        tl.store(out_ptr + start + col, rounded(out, out_ptr.dtype.element_ty), mask=mask)


@kernel
def layer_norm_bwd_bwd_kernel(
    t_ptr,
    delta_ptr,
    x_ptr,
    w_ptr,
    mean_ptr,
    rstd_ptr,
    delta_grad_ptr,
    x_grad_ptr,
    t_mean_ptr,
    tx_mean_ptr,
    sets: tl.int64,
    rows: tl.int64,
    units: tl.int64,
    CENTERED: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """delta_grad = w·r·(t − mean(t) − x̂·mean(t·x̂)), and, with g = δ·w::

        x_grad = r²·(x̂·bend − mean(t·x̂)·(g − mean(g)) − mean(g·x̂)·(t − mean(t)))
        bend = 3·mean(t·x̂)·mean(g·x̂) + mean(t)·mean(g) − mean(t·g)

    t, delta, x and the results, of which each may be None: [rows, width]; w: [sets, width]; the others: [rows].
    """
    compute: tl.constexpr = mean_ptr.dtype.element_ty
    row, start, of_set, width, exists = place(rows, sets, units, UNIT, ROWS)
    mean, rstd = tl.load(mean_ptr + row, mask=exists), tl.load(rstd_ptr + row, mask=exists)
    zeros = tl.zeros((ROWS, COLS), compute)
    t_total, tx_total, g_total, gx_total, tg_total = zeros, zeros, zeros, zeros, zeros
    for first in range(0, width, COLS):
        col = first + tl.arange(0, COLS)[None, :]
        mask = exists & (col < width)
        t = loaded(t_ptr, start + col, mask)
        g = weighted(loaded(delta_ptr, start + col, mask), w_ptr, of_set + col, mask)
        normal = tl.where(mask, (loaded(x_ptr, start + col, mask) - mean) * rstd, 0)
        t_total += t
        tx_total += t * normal
        tg_total += t * g
        g_total += g
        gx_total += g * normal
    t_mean, tx_mean = averaged(t_total, width, CENTERED), averaged(tx_total, width)
    g_mean, gx_mean = averaged(g_total, width, CENTERED), averaged(gx_total, width)
    bend = (3 * tx_mean * gx_mean + t_mean * g_mean - averaged(tg_total, width)).to(compute)
    t_mean, tx_mean, g_mean, gx_mean = t_mean.to(compute), tx_mean.to(compute), g_mean.to(compute), gx_mean.to(compute)
    tl.store(t_mean_ptr + row, t_mean, mask=exists)
    tl.store(tx_mean_ptr + row, tx_mean, mask=exists)
    for first in range(0, width, COLS):
        col = first + tl.arange(0, COLS)[None, :]
        mask = exists & (col < width)
        t = loaded(t_ptr, start + col, mask) - t_mean
        normal = (loaded(x_ptr, start + col, mask) - mean) * rstd
        if delta_grad_ptr is not None:
            delta_grad = weighted(rstd * (t - normal * tx_mean), w_ptr, of_set + col, mask)
            tl.store(delta_grad_ptr + start + col, rounded(delta_grad, delta_grad_ptr.dtype.element_ty), mask=mask)
        if x_grad_ptr is not None:
            g = weighted(loaded(delta_ptr, start + col, mask), w_ptr, of_set + col, mask)
            x_grad = rstd * rstd * (normal * bend - tx_mean * (g - g_mean) - gx_mean * t)
            tl.store(x_grad_ptr + start + col, rounded(x_grad, x_grad_ptr.dtype.element_ty), mask=mask)


@kernel
def layer_norm_weights_kernel(
    delta_ptr,
    x_ptr,
    t_ptr,
    mean_ptr,
    rstd_ptr,
    t_mean_ptr,
    tx_mean_ptr,
    w_grad_ptr,
    b_grad_ptr,
    sets: tl.int64,
    rows: tl.int64,
    units: tl.int64,
    chunks: tl.int32,
    SPAN: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """w_grad = Σ δ·x̂, or, where there is a t, Σ δ·r·(t − mean(t) − x̂·mean(t·x̂)); b_grad = Σ δ.

    Over spans of samples: w_grad, b_grad: [spans, sets, width] in the compute type, b_grad may be None. delta, x, t:
    [samples, sets, width]; the others: [samples, sets].
    """
    width = units * UNIT
    program = tl.program_id(0).to(tl.int64)
    col = program % chunks * COLS + tl.arange(0, COLS)[None, :]
    of_set, span = program // chunks % sets, program // chunks // sets
    compute: tl.constexpr = mean_ptr.dtype.element_ty
    w_total, b_total = tl.zeros((ROWS, COLS), compute), tl.zeros((ROWS, COLS), compute)
    for first in range(0, SPAN, ROWS):
        row = (span * SPAN + first + tl.arange(0, ROWS)[:, None]) * sets + of_set
        mask = (row < rows) & (col < width)
        offset = row * width + col
        delta = loaded(delta_ptr, offset, mask)
        rstd = tl.load(rstd_ptr + row, mask=row < rows, other=0)
        factor = (loaded(x_ptr, offset, mask) - tl.load(mean_ptr + row, mask=row < rows, other=0)) * rstd
        if t_ptr is not None:
            tx_mean = tl.load(tx_mean_ptr + row, mask=row < rows, other=0)
            t = loaded(t_ptr, offset, mask) - tl.load(t_mean_ptr + row, mask=row < rows, other=0)
            factor = rstd * (t - factor * tx_mean)
        w_total += delta * factor
        b_total += delta
    place = (span * sets + of_set) * width + col
    tl.store(w_grad_ptr + place, tl.sum(w_total, axis=0, keep_dims=True), mask=col < width)
    if b_grad_ptr is not None:
        tl.store(b_grad_ptr + place, tl.sum(b_total, axis=0, keep_dims=True), mask=col < width)


def layer_norm_fwd(x, w, b, width, sets, centered, eps):
    """x: [rows·width]; w, b: [sets·width] or None → y like x; mean, rstd: [rows] in the compute type."""
    y, mean, rstd = torch.empty_like(x), _stat(x, width), _stat(x, width)
    _in_rows(layer_norm_fwd_kernel, x, width, centered, x, w, b, y, mean, rstd, eps, sets)
    return y, mean, rstd


def layer_norm_bwd(delta, x, w, mean, rstd, width, sets, centered, x_asked, weights_asked):
    """delta, x: [rows·width]; w: [sets·width] or None; mean, rstd: [rows] → dx like x; dw, db: [sets·width]."""
    out = torch.empty_like(x) if x_asked else x.new_empty(0)
    _in_rows(layer_norm_bwd_kernel, out, width, centered, delta, x, w, mean, rstd, out, sets)
    return out, *_weight_gradients(delta, x, None, mean, rstd, None, None, width, sets, 2 if weights_asked else 0)


def layer_norm_bwd_bwd(t, delta, x, w, mean, rstd, width, sets, centered, delta_asked, x_asked, w_asked):
    """t, delta, x: [rows·width]; w: [sets·width] or None; mean, rstd: [rows] → ddelta, dx like x; dw: [sets·width]."""
    outs = torch.empty_like(x) if delta_asked else None, torch.empty_like(x) if x_asked else None
    means = _stat(x, width), _stat(x, width)
    _in_rows(layer_norm_bwd_bwd_kernel, x, width, centered, t, delta, x, w, mean, rstd, *outs, *means, sets)
    dw, _ = _weight_gradients(delta, x, t, mean, rstd, *means, width, sets, 1 if w_asked else 0)
    return *(x.new_empty(0) if out is None else out for out in outs), dw


def _in_rows(launched, x, width, centered, *arguments):
    if x.numel():
        cut = _tiles(x, width)
        with torch.cuda.device_of(x):
            launched[(cut.programs,)](*arguments, cut.rows, cut.units, centered, cut.UNIT, cut.ROWS, cut.COLS)


def _weight_gradients(delta, x, t, mean, rstd, t_mean, tx_mean, width, sets, count):
    """(dw, db), the first ``count`` of them, the others [0]."""
    cut = _tiles(x, max(width, 1), _WEIGHTS)
    spans = triton.cdiv(cut.rows // sets, span := max(_SPAN, cut.ROWS))
    sums = [mean.new_empty((spans, sets * width)) if i < count else None for i in range(2)]
    if x.numel() and count:
        with torch.cuda.device_of(x):
            layer_norm_weights_kernel[(spans * sets * cut.chunks,)](
                delta, x, t, mean, rstd, t_mean, tx_mean, *sums, sets, SPAN=span, **cut.arguments
            )
    return [mean.new_empty(0) if part is None else part[0] if spans == 1 else part.sum(0) for part in sums]


def _tiles(x, width, most=_TILE):
    """Whole rows to a program, in turns of COLS ≤ ``most`` elements."""
    rows, wide = x.numel() // width, width * x.itemsize % 16 == 0
    tile = (_TILE if wide else _TILE // 2) // compute_dtype(x.dtype).itemsize  # else addresses take the registers
    unit = 16 // x.itemsize if wide else 1
    cols = min(triton.next_power_of_2(width), most, tile)
    at_once = tile // cols
    return Tiles(triton.cdiv(rows, at_once), rows, width // unit, triton.cdiv(width, cols), unit, at_once, cols)


def _stat(x, width):
    return x.new_empty(x.numel() // max(width, 1), dtype=compute_dtype(x.dtype))
