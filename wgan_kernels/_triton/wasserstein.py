"""L = mean(fake) − mean(real) + weight·penalty, each term of which may be absent, and its derivative.

One launch for the scores of any ordinary batch, two above ``_SPAN`` scores. No atomics: the result is the same in every
run.
"""

import torch
import triton
import triton.language as tl

from ._launch import kernel, rounded, widened

_BLOCK = 2048
# The scores that one program sums: eight turns of its loop, about what a second launch would take.
_SPAN = 16384


@triton.jit
def summed(x_ptr, first, end, BLOCK: tl.constexpr):
    """Σ x[first:end] in float64: by lanes in the compute type, then over the lanes in float64."""
    lanes = widened(tl.zeros((BLOCK,), x_ptr.dtype.element_ty))
    for start in range(first, end, BLOCK):
        i = start + tl.arange(0, BLOCK)
        lanes += widened(tl.load(x_ptr + i, mask=i < end, other=0))
    return tl.sum(lanes.to(tl.float64))


@kernel
def score_sum_kernel(x_ptr, partial_ptr, rows: tl.int64, SPAN: tl.constexpr, BLOCK: tl.constexpr):
    """partial_p = Σ x over the p-th run of SPAN scores. x: [rows]; partial: [⌈rows/SPAN⌉] in float64."""
    first = tl.program_id(0).to(tl.int64) * SPAN
    tl.store(partial_ptr + tl.program_id(0), summed(x_ptr, first, tl.minimum(first + SPAN, rows), BLOCK))


@kernel
def wasserstein_kernel(
    real_ptr,
    fake_ptr,
    penalty_ptr,
    out_ptr,
    weight: tl.float64,
    real_terms: tl.int64,
    fake_terms: tl.int64,
    real_count: tl.int64,
    fake_count: tl.int64,
    BLOCK: tl.constexpr,
):
    """out = Σ fake/fake_count − Σ real/real_count + weight·penalty, in float64; a term that is None is left out.

    real: [real_terms], fake: [fake_terms]: scores, then as many terms as the count, or partial sums; penalty, out: [].
    """
    loss = tl.zeros((), tl.float64)
    if fake_ptr is not None:
        loss += summed(fake_ptr, tl.zeros((), tl.int64), fake_terms, BLOCK) / fake_count.to(tl.float64)
    if real_ptr is not None:
        loss -= summed(real_ptr, tl.zeros((), tl.int64), real_terms, BLOCK) / real_count.to(tl.float64)
    if penalty_ptr is not None:
        loss += tl.full((), weight, tl.float64) * tl.load(penalty_ptr).to(tl.float64)
    tl.store(out_ptr, rounded(loss, out_ptr.dtype.element_ty))


@triton.jit
def fill(out_ptr, value, count, BLOCK: tl.constexpr):
    """out_i = value for this program's i < count."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    dtype: tl.constexpr = out_ptr.dtype.element_ty
    tl.store(out_ptr + i, tl.zeros((BLOCK,), dtype) + rounded(value, dtype), mask=i < count)


@kernel
def wasserstein_bwd_kernel(
    grad_ptr,
    real_ptr,
    fake_ptr,
    penalty_ptr,
    weight: tl.float64,
    real_count: tl.int64,
    fake_count: tl.int64,
    BLOCK: tl.constexpr,
):
    """real = −grad/real_count, fake = grad/fake_count, penalty = weight·grad.

    grad, penalty: []; real: [real_count]; fake: [fake_count].
    """
    grad = widened(tl.load(grad_ptr)).to(tl.float64)
    fill(real_ptr, -grad / real_count.to(tl.float64), real_count, BLOCK)
    fill(fake_ptr, grad / fake_count.to(tl.float64), fake_count, BLOCK)
    tl.store(penalty_ptr, rounded(grad * tl.full((), weight, tl.float64), penalty_ptr.dtype.element_ty))


def wasserstein_fwd(real, fake, penalty, weight):
    """real, fake: scores of any shape; penalty: one element; each may be None, not both kinds of scores → []."""
    scores = fake if real is None else real
    out = scores.new_empty(())
    with torch.cuda.device_of(scores):
        real_terms, fake_terms = _terms(real), _terms(fake)
        wasserstein_kernel[(1,)](
            real_terms,
            fake_terms,
            penalty,
            out,
            weight,
            _count(real_terms),
            _count(fake_terms),
            _count(real),
            _count(fake),
            BLOCK=_BLOCK,
        )
    return out


def wasserstein_bwd(grad, real_count, fake_count, weight):
    """grad: [] → [real_count], [fake_count], []: what the scores and the penalty receive."""
    grads = grad.new_empty(real_count), grad.new_empty(fake_count), grad.new_empty(())
    programs = triton.cdiv(max(real_count, fake_count, 1), _BLOCK)
    with torch.cuda.device_of(grad):
        wasserstein_bwd_kernel[(programs,)](grad, *grads, weight, real_count, fake_count, BLOCK=_BLOCK)
    return grads


def _terms(scores):
    """What the last kernel sums: the scores, or, where they are many, their sums by span."""
    if scores is None or scores.numel() <= _SPAN:
        return scores
    partial = scores.new_empty(triton.cdiv(scores.numel(), _SPAN), dtype=torch.float64)
    score_sum_kernel[(partial.numel(),)](scores, partial, scores.numel(), SPAN=_SPAN, BLOCK=_BLOCK)
    return partial


def _count(scores):
    return 0 if scores is None else scores.numel()
