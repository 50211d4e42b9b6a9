"""v ← α·v + (1 − α)·g²;  w ← clip(w − lr·g/(√v + ε)) for a list of tensors, in one launch per dtype."""

import torch
import triton.language as tl

from ._launch import kernel, rounded, widened
from ._optimizer import BLOCK, check, divided, gradient, is_skipped, number, root, setting
from ._table import FIRST_LIST, TYPES, elements, entry, inside, is_aligned_run, locate, tables
from .clip import bound, clipped


@kernel
def rmsprop_kernel(
    table_ptr,
    lr_ptr,
    scale_ptr,
    found_inf_ptr,
    tensors: tl.int64,
    lr: tl.float64,
    alpha: tl.float64,
    eps: tl.float64,
    weight_decay: tl.float64,
    momentum: tl.float64,
    clip: tl.float64,
    sign: tl.float64,
    CENTERED: tl.constexpr,
    MOMENTUM: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One run of memory per program, of w, ∇L, v, where CENTERED m, and with MOMENTUM b::

        g ← sign·∇L/scale + weight_decay·w
        v ← α·v + (1 − α)·g²
        m ← α·m + (1 − α)·g;  σ = √(v − m²)            or σ = √v
        b ← momentum·b + g/(σ + ε)                     or b = g/(σ + ε)
        w ← clip(w − lr·b, −clip, clip)

    The first program of a tensor counts its step, which no other reads.
    """
    LISTS: tl.constexpr = 3 + CENTERED + MOMENTUM
    if not is_skipped(found_inf_ptr):
        row_ptr, _, count, begin = locate(table_ptr, tensors, BLOCK)
        factor = setting(sign / number(scale_ptr, 1.0), DTYPE)
        rate = setting(number(lr_ptr, lr), DTYPE)
        keep, take = setting(alpha, DTYPE), setting(1 - alpha, DTYPE)
        low, high = bound(-clip, DTYPE), bound(clip, DTYPE)
        aligned = is_aligned_run(row_ptr, tensors, begin, count, LISTS, DTYPE, BLOCK)
        for ALIGNED in tl.static_range(2):  # see clip_kernel
            if aligned == ALIGNED:
                mask = inside(begin, count, DTYPE, BLOCK, ALIGNED)
                w_ptr = elements(row_ptr, tensors, 0, begin, DTYPE, BLOCK, ALIGNED)
                grad_ptr = elements(row_ptr, tensors, 1, begin, DTYPE, BLOCK, ALIGNED)
                square_avg_ptr = elements(row_ptr, tensors, 2, begin, DTYPE, BLOCK, ALIGNED)
                w = widened(tl.load(w_ptr, mask=mask))
                grad = widened(tl.load(grad_ptr, mask=mask))
                square_avg = widened(tl.load(square_avg_ptr, mask=mask))
                if CENTERED:
                    grad_avg_ptr = elements(row_ptr, tensors, 3, begin, DTYPE, BLOCK, ALIGNED)
                    grad_avg = widened(tl.load(grad_avg_ptr, mask=mask))
                if MOMENTUM:
                    buffer_ptr = elements(row_ptr, tensors, LISTS - 1, begin, DTYPE, BLOCK, ALIGNED)
                    buffer = widened(tl.load(buffer_ptr, mask=mask))

                g = gradient(grad, w, factor, setting(weight_decay, DTYPE))
                square_avg = keep * square_avg + take * g * g
                variance = square_avg
                if CENTERED:
                    grad_avg = keep * grad_avg + take * g
                    variance -= grad_avg * grad_avg
                    tl.store(grad_avg_ptr, rounded(grad_avg, DTYPE), mask=mask)
                step = divided(g, root(variance) + setting(eps, DTYPE))
                if MOMENTUM:
                    step = setting(momentum, DTYPE) * buffer + step
                    tl.store(buffer_ptr, rounded(step, DTYPE), mask=mask)
                tl.store(square_avg_ptr, rounded(square_avg, DTYPE), mask=mask)
                tl.store(w_ptr, rounded(clipped(w - rate * step, low, high), DTYPE), mask=mask)
        if begin <= 0:
            step_ptr = entry(row_ptr, tensors, FIRST_LIST + LISTS).to(tl.pointer_type(tl.float32))
            tl.store(step_ptr, tl.load(step_ptr) + 1)


def rmsprop_(
    params,
    grads,
    square_avgs,
    grad_avgs,
    momentum_buffers,
    steps,
    lr_tensor,
    grad_scale,
    found_inf,
    lr,
    alpha,
    eps,
    weight_decay,
    momentum,
    clip,
    maximize,
):
    """params, grads, square_avgs, grad_avgs, momentum_buffers: of any shapes and dtypes, those of one parameter alike.

    The last two may be empty, and are where they are not used. steps: [] each, in float32; lr_tensor, grad_scale,
    found_inf: one number each, in float32 or float64, or None.
    """
    if momentum == 0:
        momentum_buffers = []
    elif not momentum_buffers and params:
        raise RuntimeError("rmsprop_: momentum needs momentum_buffers")
    lists = [params, grads, square_avgs, *(states for states in (grad_avgs, momentum_buffers) if states)]
    check("rmsprop_", lists, steps, lr_tensor, grad_scale, found_inf)
    if not params:
        return
    with torch.cuda.device_of(params[0]):
        for table in tables(lists, steps, BLOCK):
            rmsprop_kernel[(table.programs,)](
                table.entries,
                lr_tensor,
                grad_scale,
                found_inf,
                table.tensors,
                lr,
                alpha,
                eps,
                weight_decay,
                momentum,
                clip,
                -1.0 if maximize else 1.0,
                CENTERED=bool(grad_avgs),
                MOMENTUM=bool(momentum_buffers),
                DTYPE=TYPES[table.dtype],
                BLOCK=table.block,
            )
