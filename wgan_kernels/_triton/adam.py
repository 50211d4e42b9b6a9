"""m ← β₁·m + (1 − β₁)·g;  v ← β₂·v + (1 − β₂)·g²;  w ← clip(w − lr·m̂/(√v̂ + ε)) for a list of tensors, in one launch
per dtype."""

import math

import torch
import triton
import triton.language as tl

from ._launch import kernel, rounded, widened
from ._optimizer import BLOCK, check, divided, gradient, is_skipped, number, root, setting
from ._table import FIRST_LIST, TYPES, elements, entry, inside, is_aligned_run, locate, tables
from .clip import bound, clipped

_LISTS = tl.constexpr(4)


@triton.jit
def one_minus_exp(y):
    """1 − eʸ for y < 0, to the last digits of y's type: without cancellation near 0, where it is a series.

    1 − βᵗ of a β near 1 would lose digits, and a power in float64 is slow on a GPU that is not made for it.
    """
    near = tl.maximum(y, -0.5)
    series = near * 0 + 1
    for k in tl.static_range(14):
        series = 1 + series * near * setting(1 / (15 - k), y.dtype)
    return tl.where(y > -0.5, -near * series, 1 - tl.exp(y))


@kernel
def adam_kernel(
    table_ptr,
    lr_ptr,
    scale_ptr,
    found_inf_ptr,
    tensors: tl.int64,
    lr: tl.float64,
    beta1: tl.float64,
    beta2: tl.float64,
    log_beta1: tl.float64,
    log_beta2: tl.float64,
    eps: tl.float64,
    weight_decay: tl.float64,
    clip: tl.float64,
    sign: tl.float64,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One run of memory per program, of w, ∇L, m and v::

        g ← sign·∇L/scale + weight_decay·w
        m ← β₁·m + (1 − β₁)·g
        v ← β₂·v + (1 − β₂)·g²
        w ← clip(w − lr/(1 − β₁ᵗ)·m/(√v/√(1 − β₂ᵗ) + ε), −clip, clip)

    Every program of a tensor needs its old count of steps, t − 1, and one of them writes t: the one that is done last.
    Programs that are done are counted in the table, by an integer, which the last one sets back to 0. A program's
    threads have read t − 1 before its barrier, and so before its addition; the additions are releases, and the last one
    acquires them all: nobody reads what it writes. No result depends on which program is the last.
    """
    if not is_skipped(found_inf_ptr):
        row_ptr, origin, count, begin = locate(table_ptr, tensors, BLOCK)
        step_ptr = entry(row_ptr, tensors, FIRST_LIST + _LISTS).to(tl.pointer_type(tl.float32))
        t = tl.load(step_ptr) + 1
        correction1 = one_minus_exp(setting(t.to(tl.float64) * log_beta1, DTYPE))
        correction2 = one_minus_exp(setting(t.to(tl.float64) * log_beta2, DTYPE))
        rate = divided(setting(number(lr_ptr, lr), DTYPE), correction1)
        root_factor = divided(setting(1.0, DTYPE), root(correction2))
        factor = setting(sign / number(scale_ptr, 1.0), DTYPE)
        keep1, take1 = setting(beta1, DTYPE), setting(1 - beta1, DTYPE)
        keep2, take2 = setting(beta2, DTYPE), setting(1 - beta2, DTYPE)
        low, high = bound(-clip, DTYPE), bound(clip, DTYPE)
        aligned = is_aligned_run(row_ptr, tensors, begin, count, _LISTS, DTYPE, BLOCK)
        for ALIGNED in tl.static_range(2):  # see clip_kernel
            if aligned == ALIGNED:
                mask = inside(begin, count, DTYPE, BLOCK, ALIGNED)
                w_ptr = elements(row_ptr, tensors, 0, begin, DTYPE, BLOCK, ALIGNED)
                grad_ptr = elements(row_ptr, tensors, 1, begin, DTYPE, BLOCK, ALIGNED)
                exp_avg_ptr = elements(row_ptr, tensors, 2, begin, DTYPE, BLOCK, ALIGNED)
                exp_avg_sq_ptr = elements(row_ptr, tensors, 3, begin, DTYPE, BLOCK, ALIGNED)
                w = widened(tl.load(w_ptr, mask=mask))
                grad = widened(tl.load(grad_ptr, mask=mask))
                exp_avg = widened(tl.load(exp_avg_ptr, mask=mask))
                exp_avg_sq = widened(tl.load(exp_avg_sq_ptr, mask=mask))

                g = gradient(grad, w, factor, setting(weight_decay, DTYPE))
                exp_avg = keep1 * exp_avg + take1 * g
                exp_avg_sq = keep2 * exp_avg_sq + take2 * g * g
                w = w - divided(rate * exp_avg, root(exp_avg_sq) * root_factor + setting(eps, DTYPE))
                tl.store(exp_avg_ptr, rounded(exp_avg, DTYPE), mask=mask)
                tl.store(exp_avg_sq_ptr, rounded(exp_avg_sq, DTYPE), mask=mask)
                tl.store(w_ptr, rounded(clipped(w, low, high), DTYPE), mask=mask)
        tl.debug_barrier()
        programs = tl.cdiv(tl.maximum(origin % BLOCK + count, 1), BLOCK)
        done_ptr = row_ptr + tensors.to(tl.int64) * (FIRST_LIST + _LISTS + 1)
        if tl.atomic_add(done_ptr, 1) == programs - 1:
            tl.store(step_ptr, t)
            tl.store(done_ptr, 0)


def adam_(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    steps,
    lr_tensor,
    grad_scale,
    found_inf,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    clip,
    maximize,
):
    """params, grads, exp_avgs, exp_avg_sqs: of any shapes and dtypes, those of one parameter alike.

    steps: [] each, in float32; lr_tensor, grad_scale, found_inf: one number each, in float32 or float64, or None.
    """
    lists = [params, grads, exp_avgs, exp_avg_sqs]
    check("adam_", lists, steps, lr_tensor, grad_scale, found_inf)
    if not params:
        return
    log_beta1, log_beta2 = (math.log(beta) if beta else -math.inf for beta in (beta1, beta2))
    with torch.cuda.device_of(params[0]):
        for table in tables(lists, steps, BLOCK):
            adam_kernel[(table.programs,)](
                table.entries,
                lr_tensor,
                grad_scale,
                found_inf,
                table.tensors,
                lr,
                beta1,
                beta2,
                log_beta1,
                log_beta2,
                eps,
                weight_decay,
                clip,
                -1.0 if maximize else 1.0,
                DTYPE=TYPES[table.dtype],
                BLOCK=table.block,
            )
