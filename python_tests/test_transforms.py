"""torch.func and forward mode: the right derivative, or a clear refusal; never a silent zero."""

import pytest
import torch
from torch.autograd import forward_ad

import wgan_kernels as wk
from wgan_kernels import reference


def loss(wk, x):
    eps = torch.full((len(x),), 0.3, dtype=x.dtype)
    penalty = wk.gradient_norm_penalty(wk.interpolate(x, x.flip(0), eps))
    return wk.critic_loss(x, 2 * x, penalty) + wk.generator_loss(x)


def test_func_grad():
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(
        torch.func.grad(lambda x: loss(wk, x))(x), torch.func.grad(lambda x: loss(reference, x))(x)
    )


def test_func_grad_of_a_gradient_penalty():
    weight = torch.randn(3, dtype=torch.float64)
    real, fake, eps = (torch.randn(4, 3, dtype=torch.float64) for _ in range(3))

    def penalty(wk, weight):
        gradient = torch.func.grad(lambda x: (x @ weight).tanh().sum())(wk.interpolate(real, fake, eps[:, 0]))
        return wk.gradient_norm_penalty(gradient)

    actual = torch.func.grad(lambda w: penalty(wk, w))(weight)
    torch.testing.assert_close(actual, torch.func.grad(lambda w: penalty(reference, w))(weight))


def test_forward_mode_is_refused():
    x = torch.randn(4, 3)
    for function in (
        lambda x: wk.interpolate(x, x, torch.rand(4)),
        wk.gradient_norm_penalty,
        wk.generator_loss,
    ):
        with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"jvp|forward"):
            function(forward_ad.make_dual(x, torch.ones_like(x)))


def test_the_reference_serves_forward_mode():
    x = torch.randn(4, 3)
    with forward_ad.dual_level(), wk.use_backend("reference"):
        tangent = forward_ad.unpack_dual(wk.generator_loss(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    assert tangent.item() == pytest.approx(-1.0)


def test_vmap_is_refused():
    x = torch.randn(2, 4, 3)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(wk.gradient_norm_penalty)(x)
