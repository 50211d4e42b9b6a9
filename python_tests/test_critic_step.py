"""CriticStep: whichever way it takes, the update is that of the plain loop."""

import copy
import math
import re

import pytest
import torch
from critic_steps import IMAGE, VECTOR, assert_same_update, convolutional, linear, pair
from torch import nn

import wgan_kernels as wk


class Coupled(nn.Module):
    """Minibatch statistics: a score depends on the other samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x):
        return self.layer(torch.cat([x, x.std(0).mean().expand(x.shape[0], 1)], 1))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 1)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class MixesSamples(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(14, 1)

    def forward(self, x):
        return self.layer(x.view(-1, 14))


class OverTheBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(7, 1)

    def forward(self, x):
        return self.layer(x) + self.layer(x).mean(0, keepdim=True)


def hooked():
    critic = linear(7, 9, 1)
    critic[0].register_forward_hook(lambda module, args, out: 2 * out)
    return critic


OTHERS = {
    "hooks": (hooked, VECTOR, "0 has hooks"),
    "batch norm": (lambda: convolutional(nn.BatchNorm2d(4)), IMAGE, r"1 \(BatchNorm2d\) normalises over the batch"),
    "minibatch statistics": (Coupled, VECTOR, "no sweeps are known for std"),
    "control flow": (Branching, VECTOR, "cannot be traced"),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(7, 5)), nn.Linear(5, 1)),
        VECTOR,
        "computes its weight anew",
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(7, 5), nn.Dropout(0.0), nn.RReLU(), nn.Linear(5, 1)), VECTOR, "RReLU"),
    "mixes samples": (MixesSamples, VECTOR, "mixes samples"),
    "mean over the batch": (OverTheBatch, VECTOR, "goes over the batch"),
    "a function": (lambda: Callable(linear(7, 9, 1)), VECTOR, "not a Module"),
}


class Callable:
    """A conditional critic, say: no Module of its own."""

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)

    def parameters(self):
        return self.net.parameters()

    def buffers(self):
        return self.net.buffers()

    def double(self):
        self.net.double()
        return self


@pytest.mark.parametrize("penalty", ["gp", None])
@pytest.mark.parametrize(("make", "shape", "why"), OTHERS.values(), ids=OTHERS)
def test_other_critics_take_the_other_way_and_say_why(make, shape, why, penalty):
    ours, spec, real, fake = pair(make, shape, penalty)
    assert_same_update(ours, spec, real, fake)
    if penalty == "gp":
        assert ours._way is None
        assert ours.plan.startswith("gradient_penalty and backward: ")
        assert re.search(why, ours.plan)


def test_hooks_on_a_parameter_are_called():
    critic = linear(7, 9, 1)
    seen = []
    critic[2].weight.register_hook(seen.append)
    step = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=0.1))
    step(torch.randn(VECTOR), torch.randn(VECTOR))
    assert seen and "2.weight has hooks" in step.plan


def test_float32_is_within_its_tolerance():
    ours, spec, real, fake = pair(convolutional, IMAGE, "gp", torch.float32)
    assert_same_update(ours, spec, real, fake, rtol=1e-4, atol=1e-5)


def test_the_plan_is_a_table():
    plan = wk.CriticStep(convolutional(nn.LayerNorm((4, 4, 4))), None).plan
    assert [line.split()[1] for line in plan.splitlines()] == [
        "operation",
        "Conv2d",
        "LayerNorm",
        "leaky_relu",
        "Conv2d",
        "relu",
        "flatten",
        "Linear",
    ]
    assert "curvature" in plan and "weight gradient" in plan
    assert "curvature" not in wk.CriticStep(convolutional(), None).plan


def test_what_is_fastest_is_found_once_for_each_shape():
    ours, spec, real, fake = pair(convolutional, IMAGE, "gp", tune=True)
    assert_same_update(ours, spec, real, fake)
    assert_same_update(ours, spec, real[:3], fake[:3])
    assert list(ours.tuned) == [(5, 2, 8, 8), (3, 2, 8, 8)]
    assert ours.plan.splitlines()[-1].startswith("samples [3, 2, 8, 8]: fastest by ")
    untuned, *_ = pair(convolutional, IMAGE, "gp")
    untuned(real, fake)
    assert not untuned.tuned


@pytest.mark.parametrize("way", ["_by_program", "_by_program_in_channels_last", "_by_autograd"])
def test_every_way_gives_the_same_gradients(way, monkeypatch):
    ours, spec, real, fake = pair(convolutional, IMAGE, "gp")
    monkeypatch.setattr(ours, "_fastest", lambda *_: getattr(ours, way))
    assert_same_update(ours, spec, real, fake)


def test_frozen_layers_receive_nothing():
    ours, spec, real, fake = pair(convolutional, IMAGE, "gp")
    for step in (ours, spec):
        step.critic[0].requires_grad_(False)
        step.critic[2].weight.requires_grad_(False)
    before = ours.critic[0].weight.clone()
    assert_same_update(ours, spec, real, fake)
    assert ours.critic[0].weight.grad is None and torch.equal(ours.critic[0].weight, before)


def test_the_original_wgan_clips_in_the_optimizer():
    critic = linear(7, 9, 1)
    step = wk.CriticStep(critic, wk.optim.RMSprop(critic.parameters(), lr=0.1, clip=0.01), penalty=None)
    metrics = step(torch.randn(VECTOR), torch.randn(VECTOR))
    assert set(metrics) == {"loss", "wasserstein"}
    assert all(param.abs().max() <= 0.01 for param in critic.parameters())


def test_a_generator_of_random_numbers():
    critic = linear(7, 9, 1)
    real, fake = torch.randn(VECTOR), torch.randn(VECTOR)
    penalties = []
    for seed in (1, 1, 2):
        random = torch.Generator().manual_seed(seed)
        optimizer = wk.optim.Adam(critic.parameters(), lr=0.0)
        penalties.append(wk.CriticStep(critic, optimizer, generator=random)(real, fake)["penalty"].item())
    assert penalties[0] == penalties[1] != penalties[2]


def test_nothing_is_kept_between_steps():
    """The sweeps' tensors are let go, and the samples stay the caller's."""
    ours, _, real, fake = pair(convolutional, IMAGE, "gp")
    before = real.clone(), fake.clone()
    ours(real, fake)
    assert torch.equal(real, before[0]) and torch.equal(fake, before[1])
    for node, _ in ours._way.program.steps:
        assert all(getattr(node, name) is None for name in node.saved)


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ((torch.zeros(4, 7), torch.zeros(3, 7)), ValueError, r"real has shape \(4, 7\), fake \(3, 7\)"),
        ((torch.zeros(4, 7), torch.zeros(4, 7).long()), TypeError, "fake: expected float64"),
        ((torch.zeros(()), torch.zeros(())), ValueError, "real: expected a batch"),
        ((None, torch.zeros(4, 7)), TypeError, "real: expected a tensor, got NoneType"),
    ],
)
def test_bad_samples_raise_before_anything_is_written(arguments, kind, match):
    critic = linear(7, 9, 1)
    before = copy.deepcopy(critic.state_dict())
    step = wk.CriticStep(critic, wk.optim.RMSprop(critic.parameters(), lr=0.1))
    with pytest.raises(kind, match=match):
        step(*arguments)
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


@pytest.mark.parametrize("tune", [True, False])
def test_a_batch_that_the_critic_itself_refuses_costs_no_later_one_its_program(tune):
    critic = nn.Sequential(nn.Unflatten(1, (7, 1)), nn.Flatten(), nn.Linear(7, 1))
    step = wk.CriticStep(critic, wk.optim.Adam(critic.parameters()), tune=tune)
    plan = step.plan
    with pytest.raises(RuntimeError, match="unflatten"):
        step(torch.randn(4, 8), torch.randn(4, 8))
    assert step.plan == plan and "pullback" in plan
    step(torch.randn(4, 7), torch.randn(4, 7))
    assert step.plan.startswith(plan)


@pytest.mark.parametrize("way", ["_by_program", "_by_autograd"])
def test_a_critic_without_scores_is_refused(way, monkeypatch):
    critic = nn.Sequential(nn.Linear(7, 9), nn.LeakyReLU(), nn.Linear(9, 0))
    step = wk.CriticStep(critic, wk.optim.Adam(critic.parameters()))
    monkeypatch.setattr(step, "_fastest", lambda *_: getattr(step, way))
    with pytest.raises(ValueError, match=r"critic: expected it to return scores, got shape \(\d+, 0\)"):
        step(torch.randn(VECTOR), torch.randn(VECTOR))


def test_bad_settings():
    critic = linear(7, 9, 1)
    with pytest.raises(ValueError, match="penalty is 'wgan': expected one of 'gp', 'one-sided', 'r1', None"):
        wk.CriticStep(critic, None, "wgan")
    with pytest.raises(ValueError, match="precision is 'fp16': expected one of None, 'tf32', 'bfloat16'"):
        wk.CriticStep(critic, None, precision="fp16")
    with pytest.raises(ValueError, match="weight is NaN"):
        wk.CriticStep(critic, None, weight=math.nan)
