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


def each(function, *batches):
    return torch.stack([function(*items) for items in zip(*batches, strict=True)])


def clipped(wk, x):
    y = x.clone()
    wk.clip_([y], 0.5)
    return y


VMAPPED = {
    "interpolate": lambda wk, x: wk.interpolate(x, 2 * x, torch.full((4,), 0.3, dtype=x.dtype)),
    "norm_penalty": lambda wk, x: wk.gradient_norm_penalty(x),
    "critic_loss": lambda wk, x: wk.critic_loss(x, 2 * x, x.square().mean()),
    "generator_loss": lambda wk, x: wk.generator_loss(x),
    "clip": clipped,
}


@pytest.mark.parametrize("function", VMAPPED.values(), ids=VMAPPED)
def test_vmap_takes_the_reference(function, capfd):
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    expected = each(lambda item: function(reference, item), x)
    torch.testing.assert_close(torch.vmap(lambda item: function(wk, item))(x), expected)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("function", VMAPPED.values(), ids=VMAPPED)
def test_vmap_of_a_backend_asked_for_is_refused(function):
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    with wk.use_backend("cpp"), pytest.raises(RuntimeError, match=r"no rule for torch\.vmap"):
        torch.vmap(lambda item: function(wk, item))(x)


def test_per_sample_gradients():
    """vmap over grad, as for an ensemble of critics or per-sample clipping."""
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    actual = torch.vmap(torch.func.grad(lambda item: loss(wk, item)))(x)
    torch.testing.assert_close(actual, each(torch.func.grad(lambda item: loss(reference, item)), x))


def test_interpolate_draws_under_vmap_as_told():
    x = torch.zeros(3, 4, 2)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda item: wk.interpolate(item, item + 1))(x)
    drawn = torch.vmap(lambda item: wk.interpolate(item, item + 1), randomness="different")(x)
    assert drawn.unique().numel() == 12
    assert torch.vmap(lambda item: wk.interpolate(item, item + 1), randomness="same")(x).unique().numel() == 4


def test_clip_within_grad_leaves_no_trace_on_the_terminal(capfd):
    x = torch.tensor([0.2, 2.0])
    assert torch.func.grad(lambda x: (clipped(wk, x) * x.detach()).sum())(x).shape == x.shape
    assert not capfd.readouterr().err
