import pytest
import torch
from cases import assert_as_good, in_every_dtype, on_every_backend, on_every_batch
from torch.autograd import gradcheck, gradgradcheck

import wgan_kernels as wk
from wgan_kernels import _library, ops, reference


@on_every_backend
@in_every_dtype
@on_every_batch
def test_equals_reference(backend, device, dtype, batch, poisoned):
    real, fake = batch(dtype=dtype, device=device), batch(dtype=dtype, device=device)
    eps = torch.rand(len(real), dtype=torch.float32, device=device)
    with wk.use_backend(backend):
        x_hat = wk.interpolate(real, fake, eps)
    exact = reference.interpolate(real.double(), fake.double(), eps.double())
    assert_as_good(x_hat, reference.interpolate(real, fake, eps), exact)


@on_every_backend
@in_every_dtype
@on_every_batch
def test_gradient_equals_reference(backend, device, dtype, batch, poisoned):
    real, fake = batch(dtype=dtype, device=device), batch(dtype=dtype, device=device)
    eps = torch.rand(len(real), dtype=torch.float32, device=device)
    grad = batch(dtype=dtype, device=device)

    def gradients(function, dtype):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (real, fake)]
        return torch.autograd.grad(
            function(*inputs, eps.to(eps.dtype if dtype is not torch.float64 else dtype)), inputs, grad.to(dtype)
        )

    with wk.use_backend(backend):
        actual = gradients(wk.interpolate, dtype)
    for a, e, x in zip(
        actual, gradients(reference.interpolate, dtype), gradients(reference.interpolate, torch.float64), strict=True
    ):
        assert_as_good(a, e, x)


@on_every_backend
def test_gradients(backend, device):
    inputs = [torch.randn(3, 2, 2, dtype=torch.float64, device=device, requires_grad=True) for _ in range(2)]
    inputs.append(torch.rand(3, dtype=torch.float64, device=device, requires_grad=True))
    with wk.use_backend(backend):
        assert gradcheck(wk.interpolate, inputs)
        assert gradgradcheck(wk.interpolate, inputs)


@on_every_backend
def test_opcheck(backend, device):
    operators = _library.operators(backend)
    for batch in (torch.randn(3, 5), torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)):
        for requires_grad in (False, True):
            real, fake, grad = (batch.clone().to(device).requires_grad_(requires_grad) for _ in range(3))
            eps = torch.rand(len(batch), device=device)
            torch.library.opcheck(operators.interpolate_fwd, (real, fake, eps))
            torch.library.opcheck(operators.interpolate_bwd, (grad, eps))


@on_every_backend
def test_nan_and_inf_stay_in_their_sample(backend, device):
    for position in (0, 4, 8):
        real, fake = torch.randn(3, 9, device=device), torch.randn(3, 9, device=device)
        real[0, position], fake[1, position] = torch.nan, torch.inf
        eps = torch.tensor([0.25, 0.5, 0.75], device=device)
        with wk.use_backend(backend):
            x_hat = wk.interpolate(real, fake, eps)
        torch.testing.assert_close(x_hat, reference.interpolate(real, fake, eps), equal_nan=True)
        assert not x_hat[2].isnan().any()


@on_every_backend
def test_the_ends_are_exact(backend, device):
    real, fake = torch.randn(2, 33, device=device), torch.randn(2, 33, device=device)
    with wk.use_backend(backend):
        x_hat = wk.interpolate(real, fake, torch.tensor([1.0, 0.0], device=device))
    assert torch.equal(x_hat[0], real[0])
    assert torch.equal(x_hat[1], fake[1])


@on_every_backend
def test_eps_is_drawn_from_the_generator(backend, device):
    real, fake = torch.ones(1000, 2, device=device), torch.zeros(1000, 2, device=device)
    eps = []
    with wk.use_backend(backend):
        for seed in (1, 1, 2):
            eps.append(wk.interpolate(real, fake, generator=torch.Generator(device).manual_seed(seed)))
        torch.manual_seed(1)
        eps.append(wk.interpolate(real, fake))
    expected = torch.rand(1000, device=device, generator=torch.Generator(device).manual_seed(1))
    assert torch.equal(eps[0][:, 0], expected) and torch.equal(eps[0][:, 1], expected)
    assert torch.equal(eps[0], eps[1]) and torch.equal(eps[0], eps[3])
    assert not torch.equal(eps[0], eps[2])


@on_every_backend
def test_eps_shapes_and_dtypes(backend, device):
    real, fake = torch.randn(3, 2, 4, device=device), torch.randn(3, 2, 4, device=device)
    eps = torch.rand(3, device=device)
    with wk.use_backend(backend):
        expected = wk.interpolate(real, fake, eps)
        assert torch.equal(wk.interpolate(real, fake, eps.view(3, 1, 1)), expected)
        assert torch.equal(wk.interpolate(real, fake, eps.repeat_interleave(2)[::2]), expected)
        torch.testing.assert_close(wk.interpolate(real, fake, eps.double()), expected)
        mixed = wk.interpolate(real, fake.bfloat16(), eps)
    assert mixed.dtype is torch.float32
    torch.testing.assert_close(mixed, reference.interpolate(real, fake.bfloat16(), eps))


@on_every_backend
def test_memory_format_is_kept(backend, device):
    real = torch.randn(2, 3, 4, 5, device=device).contiguous(memory_format=torch.channels_last)
    with wk.use_backend(backend):
        assert wk.interpolate(real, real.contiguous()).is_contiguous(memory_format=torch.channels_last)


@on_every_backend
def test_same_tensor_twice(backend, device):
    x = torch.randn(3, 4, dtype=torch.float64, device=device, requires_grad=True)
    eps = torch.rand(3, dtype=torch.float64, device=device)
    with wk.use_backend(backend):
        (grad,) = torch.autograd.grad(wk.interpolate(x, x, eps).sum(), x)
    torch.testing.assert_close(grad, torch.ones_like(x))


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_seed_fits_an_operator(seed):
    """A generator's seed has 64 bits, an operator's int a sign: the bits are kept."""

    class Generator:
        offset = 8

        def initial_seed(self):
            return seed

        def get_offset(self):
            return self.offset

        def set_offset(self, offset):
            self.offset = offset

    generator = Generator()
    passed, offset = ops.interpolate._advance(generator, None)
    assert passed % 2**64 == seed and -(2**63) <= passed < 2**63
    assert (offset, generator.offset) == (8, 12)
