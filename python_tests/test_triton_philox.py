"""ε drawn within the Triton kernel: Philox4x32-10 by its published answers, and torch's mapping to [0, 1).

On the CPU the kernels run in Triton's interpreter. That ε is CUDA torch's own is a test for a machine with a GPU.
"""

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

import wgan_kernels as wk  # noqa: E402
from wgan_kernels._triton import interpolate as leaf  # noqa: E402
from wgan_kernels._triton.interpolate import unit_interval, words  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def words_kernel(seed: tl.int64, block: tl.int64, subsequence: tl.int64, out_ptr):
    """out = the four words. out: [4]."""
    w0, w1, w2, w3 = words(seed, block, subsequence)
    tl.store(out_ptr, w0.to(tl.int64))
    tl.store(out_ptr + 1, w1.to(tl.int64))
    tl.store(out_ptr + 2, w2.to(tl.int64))
    tl.store(out_ptr + 3, w3.to(tl.int64))


@triton.jit
def unit_interval_kernel(word_ptr, out_ptr, COUNT: tl.constexpr):
    """out = u(word). word, out: [COUNT]."""
    i = tl.arange(0, COUNT)
    tl.store(out_ptr + i, unit_interval(tl.load(word_ptr + i).to(tl.uint32)))


def draw_words(seed, block, subsequence):
    out = torch.empty(4, dtype=torch.int64, device=DEVICE)
    words_kernel[(1,)](signed(seed), signed(block), signed(subsequence), out)
    return out.tolist()


def signed(bits):
    return bits - 2**64 if bits >= 2**63 else bits


def in_unit_interval(values):
    out = torch.empty(len(values), device=DEVICE)
    unit_interval_kernel[(1,)](torch.tensor(values, device=DEVICE), out, COUNT=len(values))
    return out


def samples(batch, *shape):
    return torch.randn(batch, *shape, device=DEVICE), torch.randn(batch, *shape, device=DEVICE)


def eps_of(batch, seed, offset):
    return leaf.interpolate_random(*samples(batch, 1), seed, offset)[1]


# Key and counter in 64-bit halves, low word first. Source: Random123 (Salmon et al. 2011), kat_vectors, philox4x32 10.
@pytest.mark.parametrize(
    "seed, block, subsequence, expected",
    [
        (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            0x299F31D0_A4093822,
            0x85A308D3_243F6A88,
            0x03707344_13198A2E,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_published_answers(seed, block, subsequence, expected):
    assert draw_words(seed, block, subsequence) == [int(word, 16) for word in expected.split()]


def test_bits_become_numbers_as_in_torch():
    words_, numbers = zip(
        (0, 2.0**-33),
        (1, 2.0**-32 + 2.0**-33),
        (2**31, 0.5),  # 2⁻³³ is lost in float32
        (2**32 - 2**8, 1 - 2.0**-24),
        (2**32 - 1, 0.0),  # rounds to 1, which lies outside [0, 1)
        (2**24 - 1, 2.0**-8),  # halfway, to even
        (2**32 - 2**7 - 1, 1 - 2.0**-24),
        (2**32 - 2**7, 0.0),
        strict=True,
    )
    assert in_unit_interval(words_).tolist() == [torch.tensor(u).item() for u in numbers]


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5, 2**32 - 1, 2**40 + 7, -1])
@pytest.mark.parametrize("offset", [0, 4, 2**32 + 4])
def test_sample_i_has_the_first_word_of_subsequence_i(seed, offset):
    eps = eps_of(3, seed, offset)
    first = [draw_words(seed % 2**64, offset // 4, i)[0] for i in range(3)]
    assert torch.equal(eps, in_unit_interval([*first, 0])[:3])


def test_a_draw_larger_than_the_device_goes_on_with_the_other_words(monkeypatch):
    monkeypatch.setattr(leaf, "_threads", lambda tensor: 2)
    eps = eps_of(16, 9, 8)
    expected = [draw_words(9, 2 + i // 8, i % 2)[i // 2 % 4] for i in range(16)]
    assert torch.equal(eps, in_unit_interval(expected))


def test_the_same_state_draws_the_same_and_another_does_not():
    first = eps_of(64, 5, 0)
    assert torch.equal(first, eps_of(64, 5, 0))
    assert not torch.equal(first, eps_of(64, 6, 0))
    assert not torch.equal(first, eps_of(64, 5, 4))
    assert torch.equal(first[:32], eps_of(32, 5, 0))


def test_uniform():
    eps = eps_of(20_000, 1, 0).double()
    assert (eps >= 0).all() and (eps < 1).all()
    counts = torch.histc(eps, bins=20, min=0, max=1)
    chi_squared = ((counts - 1000) ** 2 / 1000).sum().item()
    assert chi_squared < 43.8  # exceeded once in 1,000 seeds, with 19 degrees of freedom
    # Neighbours are uncorrelated: the standard error is 1/√20,000 = 0.007.
    assert abs(torch.corrcoef(torch.stack([eps[:-1], eps[1:]]))[0, 1]) < 0.03


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (2, 3, 17, 19), (3, 5000), (40, 2), (3, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_interpolates_with_the_eps_it_returns(shape, dtype, poisoned):
    real, fake = (x.to(dtype) for x in samples(*shape))
    x_hat, eps = leaf.interpolate_random(real, fake, 3, 0)
    assert eps.shape == shape[:1] and eps.dtype == torch.promote_types(dtype, torch.float32)
    assert not eps.isnan().any()
    assert torch.equal(x_hat, leaf.interpolate_fwd(real, fake, eps))


def test_no_samples():
    x_hat, eps = leaf.interpolate_random(*samples(0, 3), 3, 0)
    assert x_hat.shape == (0, 3) and eps.shape == (0,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="never run on a GPU: no CUDA device is present")
@pytest.mark.parametrize("batch", [1, 64, 1000, 300_000])
@pytest.mark.parametrize("seed", [0, 2**31 + 5, 2**53 - 1])
def test_eps_is_what_cuda_torch_draws(batch, seed):
    ours = torch.Generator("cuda").manual_seed(seed)
    theirs = torch.Generator("cuda").manual_seed(seed)
    ends = torch.ones(batch, 2, device="cuda"), torch.zeros(batch, 2, device="cuda")
    for _ in range(3):
        with wk.use_backend("triton"):
            eps = wk.interpolate(*ends, generator=ours)[:, 0]
        assert torch.equal(eps, torch.rand(batch, device="cuda", generator=theirs))
        assert ours.get_offset() == theirs.get_offset()
