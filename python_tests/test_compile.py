"""torch.compile sees each op as one node, without graph breaks."""

import copy

import pytest
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


def test_interpolate_draws_anew_in_every_call():
    function = compiled(lambda real, fake: wk.interpolate(real, fake))
    real, fake = torch.zeros(64, 2), torch.ones(64, 2)
    first, second = function(real, fake), function(real, fake)
    assert (first[:, 0] == first[:, 1]).all() and first[:, 0].unique().numel() == 64
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", [wk.optim.RMSprop, wk.optim.Adam])
def test_an_optimizer_steps_within_a_graph(kind):
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    twins = [nn.Parameter(param.detach().clone()) for param in params]
    optimizer, other = kind(params, lr=0.1, clip=0.95), kind(twins, lr=0.1, clip=0.95)
    step = compiled(optimizer.step)
    for k in range(3):
        for param, twin in zip(params, twins, strict=True):
            param.grad = torch.full_like(param, k + 1.0)
            twin.grad = param.grad.clone()
        step()
        other.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param, twin)


def test_inductor_runs_them():
    """The default backend, which rewrites what is written in place."""
    net = nn.Linear(3, 1)
    optimizer = wk.optim.RMSprop(net.parameters(), lr=0.1, clip=0.05)
    twin = copy.deepcopy(net)
    other = wk.optim.RMSprop(twin.parameters(), lr=0.1, clip=0.05)

    def losses(net, real, fake, eps):
        scores = net(wk.interpolate(real, fake, eps))
        return wk.critic_loss(net(real), net(fake), wk.gradient_norm_penalty(scores))

    torch._dynamo.reset()
    loss, step = torch.compile(losses, fullgraph=True), torch.compile(optimizer.step, fullgraph=True)
    for _ in range(2):
        real, fake, eps = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4)
        for function, net_, step_ in ((loss, net, step), (losses, twin, other.step)):
            net_.zero_grad()
            function(net_, real, fake, eps).backward()
            step_()
    for param, expected in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(param, expected)
