"""One launch over a whole list of tensors of a dtype: a table in device memory says what each program works on.

::

    table [columns, tensors]: origin · count · an address for each list · (the address of a step count · programs done)

Let the tensors stand one after another on a line, each beginning in a program of its own: program p has the positions
[p·BLOCK, (p + 1)·BLOCK), and element i of a tensor stands at origin + i. A tensor whose memory begins off a multiple of
16 bytes, by as much in every list, begins as far into its program; its other runs are then aligned. An empty tensor
has a program too, which counts its step.

A table follows from addresses and counts alone, which are its key, so it is never stale. It lives on one stream, which
is in the key as well: there it is written, read and, when it is forgotten, given back to the caching allocator, which
hands memory on in the order of that stream. So nobody has to wait for anybody, and no two streams share the programs
done; two that step the same parameters at once race for the parameters as it is. A launch that is being captured into a
CUDA graph has a table of its own, a temporary of the graph that is written in the graph: see ``_written.py``.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ._written import load_writer, written

TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
# More than a training run has lists of parameters. Gradients that are allocated anew often lie where others have lain.
MAX_TABLES = 64

FIRST_LIST = tl.constexpr(2)


@triton.jit
def locate(table_ptr, tensors, BLOCK: tl.constexpr):
    """(pointer to the origin of this program's tensor, origin, count, where in the tensor the program begins).

    That is below 0 where the tensor begins later than the program.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    low = tl.zeros((), tl.int64)  # the last tensor that begins before the program ends, by bisection
    high = low + tensors
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(table_ptr + middle) < start + BLOCK:
            low = middle
        else:
            high = middle
    row_ptr = table_ptr + low
    origin = tl.load(row_ptr)
    return row_ptr, origin, tl.load(row_ptr + tensors), start - origin


@triton.jit
def entry(row_ptr, tensors, column):
    """This tensor's entry in a column."""
    return tl.load(row_ptr + tensors.to(tl.int64) * column)


@triton.jit
def is_aligned_run(row_ptr, tensors, begin, count, LISTS: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Whether the program's elements are whole 16-byte units, at multiples of 16 bytes, in every list."""
    odd = tl.minimum(begin, 0) | (tl.minimum(count - begin, BLOCK) % (128 // DTYPE.primitive_bitwidth))
    for place in tl.static_range(LISTS):
        odd |= (entry(row_ptr, tensors, FIRST_LIST + place) + begin * (DTYPE.primitive_bitwidth // 8)) % 16
    return odd == 0


@triton.jit
def elements(row_ptr, tensors, place, begin, DTYPE: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Pointers [BLOCK] to this tensor's elements from ``begin`` on, in the list at that place."""
    ptrs = entry(row_ptr, tensors, FIRST_LIST + place).to(tl.pointer_type(DTYPE)) + begin + tl.arange(0, BLOCK)
    return tl.multiple_of(ptrs, 16) if ALIGNED else ptrs


@triton.jit
def inside(begin, count, DTYPE: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Mask [BLOCK] of the elements that the tensor has; if ALIGNED, the compiler sees that it has whole units."""
    i = tl.arange(0, BLOCK)
    unit: tl.constexpr = 128 // DTYPE.primitive_bitwidth
    end = tl.minimum(count - begin, BLOCK).to(tl.int32)
    return i < end // unit * unit if ALIGNED else (i >= tl.minimum(-begin, BLOCK).to(tl.int32)) & (i < end)


class Table(NamedTuple):
    """The table of one dtype, and the launch that it is for."""

    dtype: torch.dtype
    entries: torch.Tensor  # [columns, tensors], flat
    tensors: int
    programs: int
    block: int


def tables(lists, steps, block):
    """A ``Table`` for each dtype among the tensors.

    Args:
        lists: as many lists as the kernel takes, of dense tensors; those at one place are alike but in their addresses.
        steps: a list of step counts; None where the kernel counts none, and the table has no columns for them.
        block: how many elements a program takes, a power of two; half as many of float64.
    """
    device = lists[0][0].device
    stream, make = 0, _kept
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device).cuda_stream
    if _is_capturing(device):
        make = _made
    rows = {}
    for tensors in zip(*lists, *(() if steps is None else (steps,)), strict=True):
        first = tensors[0]
        rows.setdefault(first.dtype, []).append((first.numel(), *[tensor.data_ptr() for tensor in tensors]))
    return [
        make(tuple(row), len(lists), dtype, block // 2 if dtype is torch.float64 else block, device, stream)
        for dtype, row in rows.items()
    ]


def _made(rows, lists, dtype, block, device, _stream):
    """rows: a tensor's count, its address in each list, and the address of its step count, where steps are counted."""
    columns = torch.tensor(rows, dtype=torch.int64, device="cpu").t()
    counts, offsets = columns[0], columns[1 : 1 + lists] % 16
    leads = torch.where((offsets == offsets[0]).all(0), offsets[0] // dtype.itemsize, 0)
    programs = (leads + counts + block - 1).div_(block, rounding_mode="floor").clamp_(min=1)
    last = programs.cumsum(0)
    origins = (last - programs) * block + leads
    done = [torch.zeros_like(counts)[None]] if len(columns) > 1 + lists else []
    entries = torch.cat([origins[None], columns, *done]).flatten()
    if _is_capturing(device):
        entries = written(entries.tolist(), device)
    else:
        load_writer(device)
        # From pageable memory: CUDA has taken the entries when this returns, and the stream does not stop for it.
        entries = entries.to(device, non_blocking=True)
    return Table(dtype, entries, len(rows), last[-1].item(), block)


_kept = functools.lru_cache(MAX_TABLES)(_made)


def _is_capturing(device):
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def is_one_run(tensor):
    """Whether the elements lie side by side: each stride is the product of the dimensions with smaller strides."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
