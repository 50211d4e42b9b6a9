"""Penalties equal the reference: value and every parameter gradient, for critics drawn at random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import wgan_kernels as wk

ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Softplus, nn.Sigmoid, lambda: nn.LeakyReLU(0.2)]


@st.composite
def critics(draw):
    """(critic, shape of a sample): a multilayer perceptron or a convolutional net, float64."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    depth, layers = draw(st.integers(1, 4)), []
    if draw(st.booleans()):
        width = shape = draw(st.integers(1, 9))
        for _ in range(depth):
            wider = draw(st.integers(1, 9))
            layers += [nn.Linear(width, wider, bias=draw(st.booleans())), draw(st.sampled_from(ACTIVATIONS))()]
            width = wider
        return nn.Sequential(*layers, nn.Linear(width, 1)).double(), (shape,)
    channels, side = draw(st.integers(1, 3)), draw(st.integers(3, 9))
    shape = (channels, side, side)
    for _ in range(depth):
        wider = draw(st.integers(1, 4))
        layers += [
            nn.Conv2d(channels, wider, 3, stride=draw(st.integers(1, 2)), padding=1),
            draw(st.sampled_from(ACTIVATIONS))(),
        ]
        channels = wider
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 1)).double(), shape  # a patch of scores


def gradients(penalty, critic, *args, **kwargs):
    value = penalty(critic, *args, **kwargs)
    return [value, *torch.autograd.grad(value, list(critic.parameters()), allow_unused=True, materialize_grads=True)]


def assert_equal(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)


@given(critics(), st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_gradient_penalty(critic_and_shape, batch, one_sided, target):
    critic, shape = critic_and_shape
    real, fake = torch.randn(batch, *shape).double(), torch.randn(batch, *shape).double()
    kwargs = {"eps": torch.rand(batch).double(), "target": target, "one_sided": one_sided}
    actual = gradients(wk.gradient_penalty, critic, real, fake, **kwargs)
    assert_equal(actual, gradients(wk.reference.gradient_penalty, critic, real, fake, **kwargs))


@given(critics(), st.integers(2, 5))
def test_other_penalties(critic_and_shape, batch):
    critic, shape = critic_and_shape
    x, noise = torch.randn(batch, *shape).double(), torch.rand(batch, *shape).double()
    for name, kwargs in (("r1_penalty", {}), ("r2_penalty", {}), ("dragan_penalty", {"noise": noise})):
        actual = gradients(getattr(wk, name), critic, x, **kwargs)
        assert_equal(actual, gradients(getattr(wk.reference, name), critic, x, **kwargs))


def test_real_and_fake_are_detached():
    critic = nn.Linear(3, 1)
    real, fake = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    wk.gradient_penalty(critic, real, fake).backward()
    assert real.grad is None and fake.grad is None
    assert critic.weight.grad is not None


def test_known_value():
    """critic(x) = 3x₁ + 4x₂ has a gradient of norm 5 everywhere."""

    def critic(x):
        return x @ torch.tensor([3.0, 4.0])

    x = torch.randn(6, 2)
    assert wk.gradient_penalty(critic, x, x).item() == pytest.approx(16.0)
    assert wk.gradient_penalty(critic, x, x, target=6.0, one_sided=True).item() == 0.0
    assert wk.r1_penalty(critic, x).item() == wk.r2_penalty(critic, x).item() == pytest.approx(12.5)
    assert wk.dragan_penalty(critic, x).item() == pytest.approx(16.0)


def test_dragan_of_a_single_element_has_no_spread(recwarn):
    seen = []

    def critic(x):
        seen.append(x.detach())
        return 3 * x

    assert wk.dragan_penalty(critic, torch.tensor([[2.0]])).item() == pytest.approx(4.0)
    assert seen[0].tolist() == [[2.0]] and not recwarn


def test_generator_makes_it_reproducible():
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake = torch.randn(4, 3), torch.randn(4, 3)
    for penalty in (
        lambda g: wk.gradient_penalty(critic, real, fake, generator=g),
        lambda g: wk.dragan_penalty(critic, real, generator=g),
    ):
        first, again, other = (penalty(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert first == again and first != other


@pytest.mark.parametrize("is_called", [False, True])
def test_what_is_asked_of_the_norm_is_checked_first(is_called):
    layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    critic = layers.forward if is_called else layers
    random, x = torch.Generator().manual_seed(1), torch.randn(4, 3)
    before = random.get_state()
    for penalty in (
        lambda **how: wk.gradient_penalty(critic, x, -x, generator=random, **how),
        lambda **how: wk.dragan_penalty(critic, x, generator=random, **how),
    ):
        for target in (-1.0, float("nan")):
            with pytest.raises(ValueError, match="target is"):
                penalty(target=target)
        with pytest.raises(TypeError, match="target: expected a number, got str"):
            penalty(target="1")
        with pytest.raises(TypeError, match="one_sided: expected True or False"):
            penalty(one_sided=1)
    assert torch.equal(random.get_state(), before)


def test_without_grad_it_is_a_number():
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    x, eps = torch.randn(4, 3), torch.rand(4)
    with torch.no_grad():
        value = wk.gradient_penalty(critic, x, -x, eps=eps)
    assert not value.requires_grad
    torch.testing.assert_close(value, wk.gradient_penalty(critic, x, -x, eps=eps).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision_and_autocast(dtype):
    critic = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    real, fake, eps = torch.randn(8, 16), torch.randn(8, 16), torch.rand(8)
    exact = wk.reference.gradient_penalty(critic, real, fake, eps=eps)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        value = wk.gradient_penalty(critic, real, fake.to(dtype), eps=eps)
    assert value.dtype is torch.float32
    torch.testing.assert_close(value, exact, rtol=0.05, atol=0.05)
    value.backward()
    assert all(p.grad.isfinite().all() for p in critic.parameters() if p.grad is not None)
    low = critic.to(dtype)
    wk.gradient_penalty(low, real.to(dtype), fake.to(dtype), eps=eps).backward()


def test_conditional_critic_as_a_closure():
    critic, labels = nn.Bilinear(3, 2, 1), torch.randn(4, 2)
    x = torch.randn(4, 3)
    actual, expected = (
        p(lambda x: critic(x, labels), x, -x, eps=torch.full((4,), 0.5))
        for p in (wk.gradient_penalty, wk.reference.gradient_penalty)
    )
    torch.testing.assert_close(actual, expected)
