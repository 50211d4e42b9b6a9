"""w ← min(max(w, low), high) for a list of tensors, in one launch per dtype."""

import torch
import triton
import triton.language as tl

from ._launch import RUN_BYTES, kernel, rounded, widened

_TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
# Far above the number of critics a process trains; each list of parameters needs one table per dtype.
_MAX_TABLES = 64

_tables = {}  # (device, dtype, address, count, address, count, …) → table
_captured = {}  # the same, for good


@triton.jit
def clip_run(w_ptr, mask, low, high):
    """w ← w < low ? low : w > high ? high : w. Both comparisons are false for NaN, which therefore stays."""
    w = widened(tl.load(w_ptr, mask=mask))
    w = tl.where(w < low, low, tl.where(w > high, high, w))
    tl.store(w_ptr, rounded(w, w_ptr.dtype.element_ty), mask=mask)


@kernel
def clip_kernel(table_ptr, low: tl.float64, high: tl.float64, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """w ← min(max(w, low), high) for the w of one run of memory per program.

    table: [programs, 2] of (address, count ≤ BLOCK). A run of BLOCK elements starts at a multiple of 16 bytes and is
    accessed 16 bytes at a time.
    """
    row_ptr = table_ptr + tl.program_id(0).to(tl.int64) * 2
    w_ptr = tl.load(row_ptr).to(tl.pointer_type(DTYPE))
    count = tl.load(row_ptr + 1)
    lower = widened(rounded(tl.full((), low, tl.float64), DTYPE))
    upper = widened(rounded(tl.full((), high, tl.float64), DTYPE))
    i = tl.arange(0, BLOCK)
    if count == BLOCK:
        clip_run(tl.multiple_of(w_ptr + i, 16), None, lower, upper)
    else:
        clip_run(w_ptr + i, i < count, lower, upper)


def clip_(params, low, high):
    """params: tensors of any shapes, strides and dtypes on one device, clamped in place.

    A tensor whose elements fill one run of memory, in whatever order, is clamped as that run. The others, views with
    gaps, go through ``torch.clamp_`` one by one.
    """
    spans = {}
    for param in params:
        if not (param.is_contiguous() or _is_one_run(param)):
            param.clamp_(low, high)
        elif count := param.numel():
            spans.setdefault(param.dtype, []).extend((param.data_ptr(), count))
    for dtype, dtype_spans in spans.items():
        with torch.cuda.device_of(params[0]):
            table = _table(params[0].device, dtype, dtype_spans)
            if table is None:
                for param in params:
                    if param.dtype is dtype:
                        param.clamp_(low, high)
            else:
                block = RUN_BYTES // dtype.itemsize
                clip_kernel[(table.shape[0],)](table, low, high, DTYPE=_TYPES[dtype], BLOCK=block)


def _table(device, dtype, spans):
    """clip_kernel's table, [programs, 2] on the device, for spans = [address, count, address, count, …].

    It is kept, so that a critic's table is made once and a CUDA graph that was captured with it finds it at replay.
    None: a graph is being captured and there is no table; making one would put a copy from host memory into the graph.
    """
    key = (device, dtype, *spans)
    table = _captured.get(key, _tables.get(key))
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        if table is not None:
            _captured[key] = table  # nobody says when the last replay was
        return table
    if table is None:
        if len(_tables) >= _MAX_TABLES:
            _forget_tables()
        table = _tables[key] = torch.tensor(list(_runs(dtype.itemsize, spans)), dtype=torch.int64, device=device)
    return table


def _forget_tables():
    for device in {key[0] for key in _tables}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a launch on some stream may still read one
    _tables.clear()


def _runs(itemsize, spans):
    """(address, count) of each program's run. A span's first ends at a multiple of 16 bytes: the next are aligned."""
    block = RUN_BYTES // itemsize
    for address, count in zip(spans[::2], spans[1::2], strict=True):
        length = block - address % 16 // itemsize
        while count > 0:
            yield address, min(length, count)
            address += length * itemsize
            count -= length
            length = block


def _is_one_run(tensor):
    """Whether the elements lie side by side: each stride is the product of the dimensions with smaller strides."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
