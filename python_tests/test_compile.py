"""torch.compile sees each op as one node, without graph breaks."""

import torch
from torch import nn

import wgan_kernels as wk
from wgan_kernels import reference


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def test_interpolate_and_norm_penalty_with_gradients():
    def function(wk, real, fake, eps):
        return wk.gradient_norm_penalty(wk.interpolate(real, fake, eps))

    real, fake = (torch.randn(3, 5, requires_grad=True) for _ in range(2))
    eps = torch.rand(3)
    actual = compiled(lambda *args: function(wk, *args))(real, fake, eps)
    expected = function(reference, real, fake, eps)
    torch.testing.assert_close(actual, expected)
    for a, e in zip(
        torch.autograd.grad(actual, (real, fake)), torch.autograd.grad(expected, (real, fake)), strict=True
    ):
        torch.testing.assert_close(a, e)


def test_losses_with_gradients():
    real, fake = (torch.randn(3, 1, requires_grad=True) for _ in range(2))
    actual = compiled(lambda r, f: wk.critic_loss(r, f) + wk.generator_loss(f))(real, fake)
    expected = reference.critic_loss(real, fake) + reference.generator_loss(fake)
    torch.testing.assert_close(actual, expected)
    for a, e in zip(
        torch.autograd.grad(actual, (real, fake)), torch.autograd.grad(expected, (real, fake)), strict=True
    ):
        torch.testing.assert_close(a, e)


def test_clip_mutates_within_a_graph():
    net = nn.Linear(3, 2)

    def step(x):
        wk.clip_(list(net.parameters()), 0.1)
        return net(x)

    x = torch.randn(4, 3)
    out = compiled(step)(x)
    assert all(p.abs().max() <= 0.1 for p in net.parameters())
    torch.testing.assert_close(out, net(x))
