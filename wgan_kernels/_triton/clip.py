"""w ← min(max(w, low), high) for a list of tensors, in one launch per dtype."""

import torch
import triton
import triton.language as tl

from ._launch import kernel, rounded, widened
from ._table import TYPES, elements, inside, is_aligned_run, is_one_run, locate, tables

# Elements of a program: four 16-byte accesses of float32 in each of its 128 threads.
BLOCK = 2048


@triton.jit
def bound(value, DTYPE: tl.constexpr):
    """One end of a clip as torch rounds it, to the storage type, in the type arithmetic is done in."""
    return widened(rounded(tl.full((), value, tl.float64), DTYPE))


@triton.jit
def clipped(w, low, high):
    """w < low ? low : w > high ? high : w. Both comparisons are false for NaN, which therefore stays."""
    return tl.where(w < low, low, tl.where(w > high, high, w))


@kernel
def clip_kernel(
    table_ptr, tensors: tl.int64, low: tl.float64, high: tl.float64, DTYPE: tl.constexpr, BLOCK: tl.constexpr
):
    """w ← min(max(w, low), high) for the w of one run of memory per program."""
    row_ptr, _, count, begin = locate(table_ptr, tensors, BLOCK)
    lower, upper = bound(low, DTYPE), bound(high, DTYPE)
    aligned = is_aligned_run(row_ptr, tensors, begin, count, 1, DTYPE, BLOCK)
    for ALIGNED in tl.static_range(2):  # written once, compiled twice: the second accesses 16 bytes at a time
        if aligned == ALIGNED:
            w_ptr = elements(row_ptr, tensors, 0, begin, DTYPE, BLOCK, ALIGNED)
            mask = inside(begin, count, DTYPE, BLOCK, ALIGNED)
            w = clipped(widened(tl.load(w_ptr, mask=mask)), lower, upper)
            tl.store(w_ptr, rounded(w, DTYPE), mask=mask)


def clip_(params, low, high):
    """params: tensors of any shapes, strides and dtypes on one device, clamped in place.

    A tensor whose elements fill one run of memory, in whatever order, is clamped as that run. The others, views with
    gaps, go through ``torch.clamp_`` one by one.
    """
    runs = []
    for param in params:
        if param.is_contiguous() or is_one_run(param):
            runs.append(param)
        else:
            param.clamp_(low, high)
    if runs:
        with torch.cuda.device_of(runs[0]):
            for table in tables([runs], None, BLOCK):
                clip_kernel[(table.programs,)](
                    table.entries, table.tensors, low, high, DTYPE=TYPES[table.dtype], BLOCK=table.block
                )
