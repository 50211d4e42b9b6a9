import math

import pytest
import torch
from cases import assert_as_good, in_every_dtype, on_every_backend, on_every_batch
from torch.autograd import gradcheck, gradgradcheck

import wgan_kernels as wk
from wgan_kernels import _library, reference


@on_every_backend
@in_every_dtype
@on_every_batch
@pytest.mark.parametrize("with_penalty", [False, True])
def test_equals_reference(backend, device, dtype, batch, with_penalty, poisoned):
    real, fake = batch(dtype=dtype, device=device), batch(dtype=dtype, device=device).flatten()
    penalty = torch.rand((), dtype=dtype, device=device) if with_penalty else None
    with wk.use_backend(backend):
        loss = wk.critic_loss(real, fake, penalty, weight=3.0)
    exact = reference.critic_loss(real.double(), fake.double(), penalty.double() if with_penalty else None, weight=3.0)
    assert_as_good(loss, reference.critic_loss(real, fake, penalty, weight=3.0), exact)


@on_every_backend
@in_every_dtype
@on_every_batch
def test_generator_loss_equals_reference(backend, device, dtype, batch, poisoned):
    fake = batch(dtype=dtype, device=device)
    with wk.use_backend(backend):
        loss = wk.generator_loss(fake)
    assert_as_good(loss, reference.generator_loss(fake), reference.generator_loss(fake.double()))


@on_every_backend
@in_every_dtype
@on_every_batch
def test_gradient_equals_reference(backend, device, dtype, batch, poisoned):
    terms = [
        batch(dtype=dtype, device=device),
        batch(dtype=dtype, device=device)[1:],
        torch.rand(1, dtype=dtype, device=device),
    ]

    def gradients(loss, dtype):
        inputs = [t.detach().to(dtype).requires_grad_() for t in terms]
        return torch.autograd.grad(loss(*inputs, weight=3.0).sum(), inputs)

    with wk.use_backend(backend):
        actual = gradients(wk.critic_loss, dtype)
    eager, exact = gradients(reference.critic_loss, dtype), gradients(reference.critic_loss, torch.float64)
    for a, e, x in zip(actual, eager, exact, strict=True):
        assert_as_good(a, e, x)


@on_every_backend
def test_gradients(backend, device):
    def scores(*shape):
        return torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)

    with wk.use_backend(backend):
        assert gradcheck(wk.critic_loss, (scores(3, 1), scores(2, 2), scores()))
        assert gradcheck(wk.generator_loss, (scores(5),))
        assert gradgradcheck(wk.critic_loss, (scores(3, 1), scores(2, 2), scores()))
        assert gradgradcheck(wk.generator_loss, (scores(5),))


@on_every_backend
def test_opcheck(backend, device):
    operators = _library.operators(backend)
    for requires_grad in (False, True):
        real, fake = (torch.randn(3, 1, device=device, requires_grad=requires_grad) for _ in range(2))
        penalty = torch.rand((), device=device, requires_grad=requires_grad)
        torch.library.opcheck(operators.wasserstein_fwd, (real, fake, penalty, 10.0))
        torch.library.opcheck(operators.wasserstein_fwd, (real, None, None, 0.0))
        torch.library.opcheck(operators.wasserstein_bwd, (penalty, 3, 5, 10.0))
        torch.library.opcheck(operators.wasserstein_bwd, (penalty, 3, 0, 0.0))


@on_every_backend
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_reach_the_loss(backend, device, bad):
    for position in (0, 4, 8):
        real, fake = torch.randn(9, device=device), torch.randn(9, device=device)
        real[position] = bad
        with wk.use_backend(backend):
            loss = wk.critic_loss(real, fake)
        torch.testing.assert_close(loss, reference.critic_loss(real, fake), equal_nan=True)
        assert not loss.isfinite()


@on_every_backend
def test_mixed_dtypes_take_the_widest(backend, device):
    """Scores from autocast beside a float32 penalty."""
    real, fake = (torch.randn(4, 1, device=device).bfloat16() for _ in range(2))
    with wk.use_backend(backend):
        loss = wk.critic_loss(real, fake, torch.tensor(0.5, device=device))
    assert loss.dtype is torch.float32
    exact = reference.critic_loss(real.float(), fake.float(), torch.tensor(0.5, device=device))
    torch.testing.assert_close(loss, exact)


@on_every_backend
def test_many_scores(backend, device):
    real, fake = torch.randn(100_003, device=device) + 1, torch.randn(70_001, device=device)
    with wk.use_backend(backend):
        loss = wk.critic_loss(real, fake)
    torch.testing.assert_close(loss.double(), reference.critic_loss(real.double(), fake.double()), rtol=1e-6, atol=1e-6)
