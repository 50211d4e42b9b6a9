"""The one-pass program: its gradients are those of the plain loop."""

import copy

import hypothesis
import pytest
import torch
from critic_steps import PROGRAMS, VECTOR, Both, assert_same_update, is_decided_by_rounding, pair, steps
from critics import critics
from hypothesis import given
from hypothesis import strategies as st
from test_penalty_states import stateful
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk
from wgan_kernels.one_pass.nodes import Piecewise


@pytest.mark.parametrize("penalty", ["gp", "one-sided", "r1", None])
@pytest.mark.parametrize(("make", "shape"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_gives_the_gradients_of_the_plain_loop(make, shape, penalty):
    ours, spec, real, fake = pair(make, shape, penalty)
    assert ours._way is not None or penalty is None, ours.plan
    for _ in range(2):
        assert_same_update(ours, spec, real, fake)
    assert ours._way is not None or penalty is None, ours.plan


@pytest.mark.usefixtures("however_small")
@given(critics(), st.sampled_from(["gp", "one-sided", "r1"]))
def test_any_critic(drawn, penalty):
    """By program where there is one, which is often."""
    critic, real = drawn
    fake = real.flip(0) * 0.7 + 0.3
    with sdpa_kernel(SDPBackend.MATH):
        hypothesis.assume(not is_decided_by_rounding(critic, real, fake, (), penalty))
    ours, spec = steps(critic, penalty)
    hypothesis.event("program" if ours._way else "autograd")
    with sdpa_kernel(SDPBackend.MATH):  # of attention's kernels, the one that autograd can differentiate twice
        assert_same_update(ours, spec, real, fake, rtol=1e-7, atol=1e-9)


@pytest.mark.usefixtures("however_small")
@given(stateful(), st.sampled_from(["gp", "one-sided", "r1"]))
def test_any_stateful_critic(drawn, penalty):
    """Two updates: what spectral norm follows goes on, in the one behind."""
    critic, real = drawn
    fake = real.flip(0) * 0.7 + 0.3
    with sdpa_kernel(SDPBackend.MATH):
        hypothesis.assume(not is_decided_by_rounding(critic, real, fake, (), penalty))
    ours, spec = steps(critic, penalty)
    hypothesis.event("program" if ours._way else "autograd")
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(2):
            assert_same_update(ours, spec, real, fake, rtol=1e-7, atol=1e-9)


def test_masks_after_a_batch_that_the_critic_refuses():
    """A batch of other images has been through its first layers by then."""
    ours, spec, real, fake = pair(lambda: of_digits(nn.Dropout(0.4)), (5, 1, 8, 8))
    assert_same_update(ours, spec, real, fake)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        ours(real[..., :5], fake[..., :5])
    assert_same_update(ours, spec, real, fake)
    assert ours._way is not None


def test_masks_of_other_weights():
    """Of which the program does not hear."""
    ours, spec, real, fake = pair(lambda: nn.Sequential(nn.Linear(7, 9), nn.Dropout(0.4), nn.Linear(9, 1)), VECTOR)
    assert_same_update(ours, spec, real, fake)
    with torch.no_grad():
        for step in (ours, spec):
            first, _, last = step.critic
            first.weight.data, first.bias.data = first.weight[:4].clone(), first.bias[:4].clone()
            last.weight.data = last.weight[:, :4].clone()
    assert_same_update(ours, spec, real, fake)
    assert ours._way is not None


def of_digits(*behind):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), *behind, nn.LeakyReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1)
    )


class Convolutions(TorchDispatchMode):
    """The strides of all images that convolutions are given, and how often each operator is called."""

    def __init__(self):
        super().__init__()
        self.images, self.calls = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func._schema.name] = self.calls.get(func._schema.name, 0) + 1
        if "convolution" in func._schema.name:
            self.images += [t for t in args[:2] if isinstance(t, torch.Tensor) and t.shape[0] >= 5]
        return func(*args, **(kwargs or {}))


ALONG = {
    "piecewise linear": (),
    "layer norm": (nn.LayerNorm((4, 4, 4)),),
    "one group": (nn.GroupNorm(1, 4),),
    "to a few channels": (nn.LeakyReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(2, 4, 3, padding=1)),
}


@pytest.mark.parametrize("behind", ALONG.values(), ids=ALONG)
def test_in_channels_last_memory_all_sweeps_stay_there(behind, monkeypatch):
    """Also with one channel, where an image is in both formats and its strides decide."""
    ours, spec, real, fake = pair(lambda: of_digits(*behind), (5, 1, 8, 8))
    with torch.no_grad():
        for param in ours.critic.parameters():  # a norm's weights differ
            param += torch.randn_like(param) / 10
    spec.critic.load_state_dict(ours.critic.state_dict())
    monkeypatch.setattr(ours, "_fastest", lambda *_: ours._by_program_in_channels_last)
    assert_same_update(ours, spec, real, fake)
    with Convolutions() as seen:
        ours(real, fake)
    assert len(seen.images) >= 9 and {image.stride(1) for image in seen.images} == {1}
    assert all(param.grad.stride() == param.stride() for param in ours.critic.parameters())


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_without_tuning_samples_are_in_the_memory_of_the_kernels(memory):
    """As a convolution of PyTorch's gives its result; what comes before one, here pixel_unshuffle, does not know."""
    layers = nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(8, 4, 3), nn.Flatten()
    ours, spec, real, fake = pair(lambda: nn.Sequential(*copy.deepcopy(layers), nn.Linear(16, 1)), (5, 1, 8, 8))
    for step in (ours, spec):
        step.critic.to(memory_format=memory)
    assert_same_update(ours, spec, real, fake)
    with Convolutions() as seen:
        ours(real, fake)
    is_last = [image.is_contiguous(memory_format=torch.channels_last) for image in seen.images]
    assert is_last == [memory is torch.channels_last] * len(seen.images)


def written_over(critic):
    """[(x, δ)] of the piecewise linear operations of its program."""
    nodes = [node for node, _ in wk.CriticStep(critic, None)._way.program.steps]
    return [(node.over_x, node.over_delta) for node in nodes if isinstance(node, Piecewise)]


def test_activations_write_over_what_nobody_else_reads():
    """The memory that they leave alone is seen by the gradients of PROGRAMS."""
    assert written_over(of_digits()) == [(True, True)] * 2
    first, second = written_over(nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.LeakyReLU(), nn.Linear(9, 1)))
    assert first == (True, False) and second == (False, True)
    shared = nn.Sequential(nn.Linear(7, 9), Both(nn.ReLU(), nn.Linear(9, 9)), nn.Linear(9, 1))
    assert written_over(shared) == [(False, False)]
    ours, _, real, fake = pair(of_digits, (5, 1, 8, 8))
    with Convolutions() as seen:
        ours(real, fake)
    assert seen.calls["aten::leaky_relu_"] == 1 and "aten::leaky_relu" not in seen.calls
