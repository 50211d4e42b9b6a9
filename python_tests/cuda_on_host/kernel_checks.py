"""What only the CUDA kernels have: alignment, tables, chunks, a draw. Collected by test_cuda_on_host.py alone."""

import ctypes
import mmap

import pytest
import torch
from cases import assert_as_good, in_every_dtype
from philox import uniform

import wgan_kernels as wk
from wgan_kernels import reference

leaves = torch.ops.wgan_kernels
PROT_NONE = 0


def fenced(values, *, at_end):
    """The values, 1-d, in memory that ends (or begins) at a page that may not be touched."""
    size = values.numel() * values.element_size()
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, room + 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    for fence in (address, address + mmap.PAGESIZE + room):
        assert libc.mprotect(ctypes.c_void_p(fence), mmap.PAGESIZE, PROT_NONE) == 0
    offset = mmap.PAGESIZE + (room - size if at_end else 0)
    tensor = torch.frombuffer(pages, dtype=values.dtype, count=values.numel(), offset=offset)
    return tensor.copy_(values)


def assert_loss_is_good(real, fake):
    exact = reference.critic_loss(real.double(), fake.double())
    assert_as_good(wk.critic_loss(real, fake), reference.critic_loss(real, fake), exact)


def assert_norm_is_good(norm, rows):
    error = (norm.double() / rows.double().norm(dim=1) - 1).abs().max()
    assert error <= (1e-14 if norm.dtype is torch.float64 else 1e-7)


@in_every_dtype
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_beyond_a_tensor_is_touched(dtype, at_end):
    for count in (1, 2, 3, 5, 8, 31, 1023, 1025, 4096, 5000, 16391):
        x = fenced(torch.randn(count).to(dtype), at_end=at_end)
        expected = x.clone().clamp_(-0.5, 0.5)
        wk.clip_([x], 0.5)
        assert torch.equal(x, expected)
        for rows in (1, 3):
            if count % rows:
                continue
            real, fake = (fenced(torch.randn(count).to(dtype), at_end=at_end).view(rows, -1) for _ in range(2))
            eps = fenced(torch.rand(rows, dtype=torch.promote_types(dtype, torch.float32)), at_end=at_end)
            assert torch.equal(wk.interpolate(real, fake, eps), reference.interpolate(real, fake, eps))
            for gradient in leaves.interpolate_bwd(real, eps):
                assert gradient.isfinite().all()
            penalty, norm = leaves.norm_penalty_fwd(real, 1.0, False, 0)
            assert_norm_is_good(norm, real)
            leaves.norm_penalty_bwd(penalty, real, norm, 1.0, False, 0)
            assert_loss_is_good(real, fake)
            width = count // rows
            w = fenced(torch.randn(width).to(dtype), at_end=at_end)
            y, mean, rstd = leaves.layer_norm_fwd(real, w, w, width, 1, True, 0.1)
            how = (w, mean, rstd, width, 1, True)
            results = leaves.layer_norm_bwd(fake, real, *how, True, True)
            results += leaves.layer_norm_bwd_bwd(fake, fake, real, *how, True, True, True)
            assert all(result.isfinite().all() for result in (y, *results))


@in_every_dtype
def test_every_alignment(dtype):
    """Views that begin anywhere between two 16-byte boundaries, alike and not."""
    for first in range(9):
        for second in (first, 0, 1):
            whole = torch.randn(3, 6000).to(dtype)
            real, fake = whole[0, first : first + 5001].view(3, -1), whole[1, second : second + 5001].view(3, -1)
            eps = torch.rand(3, dtype=torch.promote_types(dtype, torch.float32))
            assert torch.equal(wk.interpolate(real, fake, eps), reference.interpolate(real, fake, eps))
            torch.testing.assert_close(wk.gradient_norm_penalty(real), reference.gradient_norm_penalty(real))
            expected = whole.clone()
            expected[0, first : first + 5001].clamp_(-0.1, 0.1)
            wk.clip_([real], 0.1)
            assert torch.equal(whole, expected)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 33, 255, 1024, 1025, 2047, 5000])
@in_every_dtype
def test_every_width(width, dtype):
    """Several rows to a 16-byte access, to a block, and several blocks to a row."""
    rows = max(2, 12_000 // width)
    real, fake = torch.randn(rows, width).to(dtype), torch.randn(rows, width).to(dtype)
    eps = torch.rand(rows, dtype=torch.promote_types(dtype, torch.float32))
    assert torch.equal(wk.interpolate(real, fake, eps), reference.interpolate(real, fake, eps))
    real_grad, fake_grad = leaves.interpolate_bwd(real, eps)
    assert torch.equal(real_grad, (eps[:, None] * real.to(eps.dtype)).to(dtype))
    assert torch.equal(fake_grad, ((1 - eps)[:, None] * real.to(eps.dtype)).to(dtype))
    penalty, norm = leaves.norm_penalty_fwd(real, 1.0, False, 0)
    assert_norm_is_good(norm, real)
    out = leaves.norm_penalty_bwd(penalty, real, norm, 1.0, False, 0)
    exact = penalty.double()[:, None] * 2 * (1 - 1 / norm.double()[:, None]) * real.double()
    torch.testing.assert_close(out, exact.to(dtype))


@pytest.mark.parametrize("tensors", [1, 135, 136, 137, 1159, 1160, 1161, 3000])
def test_tables_fill_up(tensors):
    params = [torch.randn(1 + i % 7 + 3000 * (i % 97 == 5)) for i in range(tensors)]
    expected = [p.clamp(-0.3, 0.2) for p in params]
    wk.clip_(params, -0.3, 0.2)
    assert all(torch.equal(p, e) for p, e in zip(params, expected, strict=True))


@pytest.mark.parametrize("count", [16_384, 16_385, 1_200_000])
@in_every_dtype
def test_means_of_many_scores(count, dtype):
    real, fake = torch.randn(count + 3).to(dtype)[3:] + 1, torch.randn(100).to(dtype)
    assert_loss_is_good(real, fake)
    grads = leaves.wasserstein_bwd(torch.tensor(2.0, dtype=dtype), count, 100, 3.0)
    for grad, size in zip(grads, (count, 100, 1), strict=True):
        assert grad.numel() == size and (grad == grad.flatten()[0]).all()


def test_a_row_of_many_chunks():
    """More than 8,192,000 elements: chunks of a row grow, and a lane goes on in double."""
    grad = torch.randn(1, 8192 * 1024 + 77)
    _, norm = leaves.norm_penalty_fwd(grad, 1.0, False, 1)
    assert_norm_is_good(norm, grad)


@in_every_dtype
@pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (2, 3, 17, 19), (3, 5000), (600, 2), (3, 0), (0, 3)])
def test_the_draw(shape, dtype):
    """The device of cuda_runtime.h holds 32 threads: samples beyond take further words of a thread's stream."""
    real, fake = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    for seed, offset in ((0, 0), (-1, 4), (2**40 + 7, 2**32 + 4)):
        x_hat, eps = leaves.interpolate_random(real, fake, seed, offset)
        assert eps.tolist() == [uniform(seed % 2**64, offset, i, threads=32) for i in range(shape[0])]
        assert torch.equal(x_hat, leaves.interpolate_fwd(real, fake, eps))


def test_the_same_in_every_run():
    grad, scores = torch.randn(37, 5001), torch.randn(50_001)
    first = leaves.norm_penalty_fwd(grad, 1.0, False, 1), wk.generator_loss(scores)
    for _ in range(3):  # the threads take turns in another order each time
        again = leaves.norm_penalty_fwd(grad, 1.0, False, 1), wk.generator_loss(scores)
        assert torch.equal(again[0][0], first[0][0]) and torch.equal(again[0][1], first[0][1])
        assert torch.equal(again[1], first[1])
