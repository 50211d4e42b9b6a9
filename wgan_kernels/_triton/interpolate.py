"""x̂_i = ε_i·real_i + (1 − ε_i)·fake_i on [rows, width] memory, ε given or drawn in the kernel."""

import torch
import triton
import triton.language as tl

from .._layout import compute_dtype
from ._launch import kernel, rounded, tile, tiles


@triton.jit
def blend(real_ptr, fake_ptr, out_ptr, eps, offset, mask):
    """out = ε·real + (1 − ε)·fake at the offsets [ROWS, COLS]; eps: [ROWS, 1]."""
    real = tl.load(real_ptr + offset, mask=mask).to(eps.dtype)
    fake = tl.load(fake_ptr + offset, mask=mask).to(eps.dtype)
    tl.store(out_ptr + offset, rounded(eps * real + (1 - eps) * fake, out_ptr.dtype.element_ty), mask=mask)


@kernel
def interpolate_fwd_kernel(
    real_ptr,
    fake_ptr,
    eps_ptr,
    out_ptr,
    rows: tl.int64,
    units: tl.int64,
    chunks: tl.int32,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """out_ij = ε_i·real_ij + (1 − ε_i)·fake_ij. real, fake, out: [rows, width]; eps: [rows] in the compute type."""
    row, _, offset, mask = tile(rows, units, chunks, UNIT, ROWS, COLS)
    eps = tl.load(eps_ptr + row, mask=row < rows)
    blend(real_ptr, fake_ptr, out_ptr, eps, offset, mask)


@kernel
def interpolate_bwd_kernel(
    grad_ptr,
    eps_ptr,
    real_grad_ptr,
    fake_grad_ptr,
    rows: tl.int64,
    units: tl.int64,
    chunks: tl.int32,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """real_grad_ij = ε_i·grad_ij, fake_grad_ij = (1 − ε_i)·grad_ij. All [rows, width]; eps: [rows]."""
    row, _, offset, mask = tile(rows, units, chunks, UNIT, ROWS, COLS)
    eps = tl.load(eps_ptr + row, mask=row < rows)
    grad = tl.load(grad_ptr + offset, mask=mask).to(eps.dtype)
    tl.store(real_grad_ptr + offset, rounded(eps * grad, real_grad_ptr.dtype.element_ty), mask=mask)
    tl.store(fake_grad_ptr + offset, rounded((1 - eps) * grad, fake_grad_ptr.dtype.element_ty), mask=mask)


@triton.jit
def words(seed, block, subsequence):
    """Philox4x32-10(key = seed, counter = (block, subsequence)): four words. An argument is two words, low first."""
    seed = seed.to(tl.uint64)
    block = block.to(tl.uint64)
    subsequence = subsequence.to(tl.uint64)
    return tl.philox(
        seed,
        block.to(tl.uint32),
        (block >> 32).to(tl.uint32),
        subsequence.to(tl.uint32),
        (subsequence >> 32).to(tl.uint32),
    )


@triton.jit
def unit_interval(word):
    """u = w·2⁻³² + 2⁻³³ in float32, and 0 where that is 1: as torch makes a number in [0, 1) of 32 random bits."""
    u = word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
    return tl.where(u == 1.0, 0.0, u)


@triton.jit
def uniform(seed, offset, index, threads):
    """Element ``index`` of the float32 tensor that torch draws from U[0, 1) with ``threads`` CUDA threads.

    Thread t owns the subsequence t of Philox and makes the elements t, t + threads, …, four of them from the four words
    of one block; the stream begins at block offset/4.
    """
    thread = index % threads
    turn = index // threads
    w0, w1, w2, w3 = words(seed, offset // 4 + turn // 4, thread)
    word = tl.where(turn % 4 == 0, w0, tl.where(turn % 4 == 1, w1, tl.where(turn % 4 == 2, w2, w3)))
    return unit_interval(word)


@kernel
def interpolate_random_kernel(
    real_ptr,
    fake_ptr,
    eps_ptr,
    out_ptr,
    seed: tl.int64,
    offset: tl.int64,
    threads: tl.int64,
    rows: tl.int64,
    units: tl.int64,
    chunks: tl.int32,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    """out_ij = ε_i·real_ij + (1 − ε_i)·fake_ij with ε_i = uniform(seed, offset, i); eps: [rows] receives ε.

    Every program of a row draws its ε again, which costs less than a load; the first of them stores it.
    """
    row, chunk, place, mask = tile(rows, units, chunks, UNIT, ROWS, COLS)
    eps = uniform(seed, offset, row, threads).to(eps_ptr.dtype.element_ty)
    if chunk == 0:
        tl.store(eps_ptr + row, eps, mask=row < rows)
    blend(real_ptr, fake_ptr, out_ptr, eps, place, mask)


def interpolate_fwd(real, fake, eps):
    """real, fake: [B, …] in one memory format; eps: [B] in the compute type → [B, …]."""
    out = torch.empty_like(real)
    if real.numel():
        cut = tiles(real)
        with torch.cuda.device_of(real):
            interpolate_fwd_kernel[(cut.programs,)](real, fake, eps, out, **cut.arguments)
    return out


def interpolate_bwd(grad, eps):
    """grad: [B, …]; eps: [B] in the compute type → d/d real, d/d fake: [B, …]."""
    real_grad, fake_grad = torch.empty_like(grad), torch.empty_like(grad)
    if grad.numel():
        cut = tiles(grad)
        with torch.cuda.device_of(grad):
            interpolate_bwd_kernel[(cut.programs,)](grad, eps, real_grad, fake_grad, **cut.arguments)
    return real_grad, fake_grad


def interpolate_random(real, fake, seed, offset):
    """real, fake: [B, …] in one memory format → x̂: [B, …], ε: [B] in the compute type.

    ε is, by torch's sources, bit for bit ``torch.rand(B, device=real.device)`` of a CUDA generator with that seed and
    offset. For float64 samples it is that same float32 number, which is not what torch draws for them.
    """
    out = torch.empty_like(real)
    eps = real.new_empty(real.shape[0], dtype=compute_dtype(real.dtype))
    if eps.numel():
        cut = tiles(real)
        with torch.cuda.device_of(real):
            interpolate_random_kernel[(cut.programs,)](
                real, fake, eps, out, seed, offset, _threads(real), **cut.arguments
            )
    return out, eps


def _threads(tensor):
    """How many threads torch spreads a large draw over: as many as the device holds at once.

    In the interpreter there is no device; one thread per element is what a draw of ordinary size comes to anyway.
    """
    if not tensor.is_cuda:
        return tensor.shape[0]
    device = torch.cuda.get_device_properties(tensor.device)
    return device.multi_processor_count * device.max_threads_per_multi_processor
