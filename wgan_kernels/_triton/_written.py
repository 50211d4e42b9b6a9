"""Integers written into device memory by kernels that carry them as arguments.

A CUDA graph keeps the arguments of its launches, and each replay writes them again; a copy from ordinary host memory
cannot be captured at all.
"""

import functools

import torch
import triton
import triton.language as tl

_AT_ONCE = 64


# fmt: off
@triton.jit(do_not_specialize=range(1, 66))
def write_kernel(
    table_ptr, first: tl.int64,
    a0: tl.int64, a1: tl.int64, a2: tl.int64, a3: tl.int64, a4: tl.int64, a5: tl.int64, a6: tl.int64, a7: tl.int64,
    b0: tl.int64, b1: tl.int64, b2: tl.int64, b3: tl.int64, b4: tl.int64, b5: tl.int64, b6: tl.int64, b7: tl.int64,
    c0: tl.int64, c1: tl.int64, c2: tl.int64, c3: tl.int64, c4: tl.int64, c5: tl.int64, c6: tl.int64, c7: tl.int64,
    d0: tl.int64, d1: tl.int64, d2: tl.int64, d3: tl.int64, d4: tl.int64, d5: tl.int64, d6: tl.int64, d7: tl.int64,
    e0: tl.int64, e1: tl.int64, e2: tl.int64, e3: tl.int64, e4: tl.int64, e5: tl.int64, e6: tl.int64, e7: tl.int64,
    f0: tl.int64, f1: tl.int64, f2: tl.int64, f3: tl.int64, f4: tl.int64, f5: tl.int64, f6: tl.int64, f7: tl.int64,
    g0: tl.int64, g1: tl.int64, g2: tl.int64, g3: tl.int64, g4: tl.int64, g5: tl.int64, g6: tl.int64, g7: tl.int64,
    h0: tl.int64, h1: tl.int64, h2: tl.int64, h3: tl.int64, h4: tl.int64, h5: tl.int64, h6: tl.int64, h7: tl.int64,
):
    """table[first:first + 64] = a0, a1, …, h7. Not a tuple: Triton would compile anew for other values in it."""
    values = (
        a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3, c4, c5, c6, c7,
        d0, d1, d2, d3, d4, d5, d6, d7, e0, e1, e2, e3, e4, e5, e6, e7, f0, f1, f2, f3, f4, f5, f6, f7,
        g0, g1, g2, g3, g4, g5, g6, g7, h0, h1, h2, h3, h4, h5, h6, h7,
    )
    for i in tl.static_range(64):
        tl.store(table_ptr + first + i, values[i])
# fmt: on


def written(numbers, device):
    """[n] in int64, n ≥ len(numbers): the numbers, then zeros."""
    out = torch.empty(triton.cdiv(len(numbers), _AT_ONCE) * _AT_ONCE, dtype=torch.int64, device=device)
    for first in range(0, len(numbers), _AT_ONCE):
        some = numbers[first : first + _AT_ONCE]
        write_kernel[(1,)](out, first, *some, *[0] * (_AT_ONCE - len(some)))
    return out


@functools.cache
def load_writer(device):
    """Has the kernel compiled and loaded, for which it would be too late within a capture."""
    written([0], device)
