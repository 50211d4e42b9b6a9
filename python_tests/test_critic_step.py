"""CriticStep: whichever way it takes, the update is that of the plain loop."""

import copy
import itertools
import math
import re

import hypothesis
import pytest
import torch
from critics import Residual, critics, is_on_a_kink
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk


class Functional(nn.Module):
    """Written out: functions, methods, sizes, a layer used twice, two joins."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = (
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Linear(48, 1),
        )

    def forward(self, x):
        y = F.leaky_relu(self.first(x), 0.2)
        y = y + F.relu(self.twice(y))
        y = torch.tanh(y + torch.relu(self.twice(y)))
        return self.last(y.view(y.size(0), -1))


class Both(nn.Module):
    """The sum of two layers of one value."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x) + self.second(x)


class Pooled(nn.Module):
    """Written out: a scaled sum over the pixels, then a squeeze."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 4, 3), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(
            (F.silu(self.conv(x)) * 0.5).mean((2, 3)) + F.avg_pool2d(self.conv(x), 6).squeeze(3).squeeze(2)
        ).squeeze(1)


def linear(*widths, activation=nn.LeakyReLU):
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


def convolutional(*behind, activation=lambda: nn.LeakyReLU(0.2)):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1),
        *behind,
        activation(),
        nn.Conv2d(4, 3, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 1),
    )


IMAGE, VECTOR = (5, 2, 8, 8), (6, 7)
PROGRAMS = {
    "linear": (lambda: linear(7, 9, 5, 1), VECTOR),
    "one layer": (lambda: nn.Sequential(nn.Linear(7, 1)), VECTOR),
    "a layer itself": (lambda: nn.Linear(7, 1), VECTOR),
    "smooth": (lambda: linear(7, 9, 5, 1, activation=nn.Softplus), VECTOR),
    "sequences": (lambda: linear(7, 9, 1), (4, 3, 7)),
    "residual": (
        lambda: nn.Sequential(nn.Linear(7, 9), Residual(linear(9, 4, 9)), nn.ReLU6(), nn.Linear(9, 1)),
        VECTOR,
    ),
    "no parameters at first": (
        lambda: nn.Sequential(
            nn.AvgPool2d(2),
            nn.LeakyReLU(0.2),
            Residual(nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 4)), nn.ReLU())),
            nn.PixelUnshuffle(2),
            nn.Conv2d(8, 5, 2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(5, 1),
        ),
        IMAGE,
    ),
    "curved at first": (
        lambda: nn.Sequential(nn.Tanh(), nn.LayerNorm(7, elementwise_affine=False), nn.Linear(7, 1)),
        VECTOR,
    ),
    "a curved value for two layers": (
        lambda: nn.Sequential(
            nn.Linear(7, 9), nn.Tanh(), Both(nn.Linear(9, 4), nn.Linear(9, 4)), nn.Softplus(), nn.Linear(4, 1)
        ),
        VECTOR,
    ),
    "residual at the input": (lambda: nn.Sequential(Residual(nn.Linear(7, 7)), nn.Hardtanh(), nn.Linear(7, 1)), VECTOR),
    "convolutions": (convolutional, IMAGE),
    "in place": (lambda: convolutional(activation=lambda: nn.LeakyReLU(0.2, inplace=True)), IMAGE),
    "layer norm": (lambda: convolutional(nn.LayerNorm((4, 4, 4))), IMAGE),
    "group norm": (lambda: convolutional(nn.GroupNorm(2, 4)), IMAGE),
    "instance norm": (lambda: convolutional(nn.InstanceNorm2d(4, affine=True)), IMAGE),
    "batch norm in evaluation": (lambda: convolutional(nn.BatchNorm2d(4)).eval(), IMAGE),
    "prelu": (lambda: convolutional(activation=nn.PReLU), IMAGE),
    "pools": (lambda: convolutional(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)), IMAGE),
    "adaptive pool": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 12, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 1)
        ),
        IMAGE,
    ),
    "pixels to channels": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 1, 4), nn.LeakyReLU(0.2)), IMAGE),
    "global mean": (lambda: Pooled(), IMAGE),
    "patches": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 2)), IMAGE),
    "transposed and grouped": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3, 2, groups=2), nn.ReLU(), nn.Conv2d(4, 1, 3, dilation=2)),
        IMAGE,
    ),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)), (4, 2, 6)),
    "written out": (lambda: nn.Sequential(nn.AvgPool2d(2), Functional()), IMAGE),
}


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
        "no sweeps are known for ParametrizedLinear|cannot be traced",
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

    def double(self):
        self.net.double()
        return self


def pair(make, shape, penalty, dtype=torch.float64, tune=False):
    """(ours, the reference's) step over equal critics, and real and fake samples."""
    torch.manual_seed(3)
    critic = make()
    critic = critic.double() if dtype is torch.float64 else critic
    twin = copy.deepcopy(critic)
    real, fake = torch.randn(shape, dtype=dtype), 2 * torch.randn(shape, dtype=dtype)
    ours = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=1e-3), penalty, 3.0, tune=tune)
    spec = wk.reference.CriticStep(twin, torch.optim.SGD(twin.parameters(), lr=1e-3), penalty, 3.0)
    return ours, spec, real, fake


def assert_same_update(ours, spec, real, fake, **tolerance):
    tolerance = {"rtol": 1e-9, "atol": 1e-11} | tolerance
    torch.manual_seed(5)
    actual = ours(real, fake)
    torch.manual_seed(5)
    expected = spec(real, fake)
    assert set(actual) == set(expected)
    for name, value in actual.items():
        assert value.dim() == 0 and not value.requires_grad
        torch.testing.assert_close(value, expected[name], **tolerance)
    received = [param.grad for param in spec.critic.parameters() if param.grad is not None and param.grad.numel()]
    tolerance["atol"] *= max([1.0, *(grad.abs().max().item() for grad in received)])  # rounding is relative to these
    for param, other in zip(ours.critic.parameters(), spec.critic.parameters(), strict=True):
        assert (param.grad is None) == (other.grad is None)
        if param.grad is not None:
            torch.testing.assert_close(param.grad, other.grad, **tolerance)
        torch.testing.assert_close(param, other, **(tolerance | {"atol": 10 * tolerance["atol"]}))


@pytest.mark.parametrize("penalty", ["gp", "one-sided", "r1", None])
@pytest.mark.parametrize(("make", "shape"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_gives_the_gradients_of_the_plain_loop(make, shape, penalty):
    ours, spec, real, fake = pair(make, shape, penalty)
    assert ours._program is not None or penalty is None, ours.plan
    for _ in range(2):
        assert_same_update(ours, spec, real, fake)
    assert ours._program is not None or penalty is None, ours.plan


def is_decided_by_rounding(critic, real, fake, penalty):
    """Whether a gradient is 0 but for rounding, which the penalty's derivative divides by, or a sign is rounding's."""
    torch.manual_seed(5)
    points = real if penalty == "r1" else wk.reference.interpolate(real, fake)
    norms = wk.reference.penalty.input_gradient(critic, points).flatten(1).norm(dim=1)
    return ((norms > 0) & (norms < 1e-9)).any() or any(is_on_a_kink(critic, x) for x in (real, fake, points))


@pytest.mark.usefixtures("however_small")
@given(critics(), st.sampled_from(["gp", "one-sided", "r1"]))
def test_any_critic(drawn, penalty):
    """By program where there is one, which is often."""
    critic, real = drawn
    twin = copy.deepcopy(critic)
    fake = real.flip(0) * 0.7 + 0.3
    with sdpa_kernel(SDPBackend.MATH):
        hypothesis.assume(not is_decided_by_rounding(copy.deepcopy(critic), real, fake, penalty))
    ours = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=1e-3), penalty, 3.0, tune=False)
    spec = wk.reference.CriticStep(twin, torch.optim.SGD(twin.parameters(), lr=1e-3), penalty, 3.0)
    hypothesis.event("program" if ours._program else "autograd")
    with sdpa_kernel(SDPBackend.MATH):  # of attention's kernels, the one that autograd can differentiate twice
        assert_same_update(ours, spec, real, fake, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("penalty", ["gp", None])
@pytest.mark.parametrize(("make", "shape", "why"), OTHERS.values(), ids=OTHERS)
def test_other_critics_take_the_other_way_and_say_why(make, shape, why, penalty):
    ours, spec, real, fake = pair(make, shape, penalty)
    assert_same_update(ours, spec, real, fake)
    if penalty == "gp":
        assert ours._program is None
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
    monkeypatch.setattr(ours, "_way", lambda *_: getattr(ours, way))
    assert_same_update(ours, spec, real, fake)


def test_frozen_layers_receive_nothing():
    ours, spec, real, fake = pair(convolutional, IMAGE, "gp")
    for step in (ours, spec):
        step.critic[0].requires_grad_(False)
        step.critic[2].weight.requires_grad_(False)
    before = ours.critic[0].weight.clone()
    assert_same_update(ours, spec, real, fake)
    assert ours.critic[0].weight.grad is None and torch.equal(ours.critic[0].weight, before)


def gradients(kind, dtype, make, shape, way=None, **settings):
    """Of updates with the R1 penalty, which draws nothing, of some critics: one long vector in float64."""
    found = []
    for seed in range(8):
        torch.manual_seed(seed)
        critic = make().to(dtype)
        real, fake = torch.randn(2, *shape).to(dtype)
        step = kind(critic, torch.optim.SGD(critic.parameters(), lr=0.0), "r1", tune=False, **settings)
        if way:
            step._way = lambda *_, step=step: getattr(step, way)
        step(real, fake)
        found += [param.grad.double().flatten() for param in critic.parameters()]
    return torch.cat(found)


NARROW = PROGRAMS | {"batch norm": (lambda: convolutional(nn.BatchNorm2d(4)), IMAGE)}


@pytest.mark.parametrize("way", ["by precision", "by the caller", "in channels-last memory"])
@pytest.mark.parametrize(("make", "shape"), NARROW.values(), ids=NARROW)
def test_bfloat16_is_as_exact_as_eager(make, shape, way):
    """Against float64: at most twice the error of the reference under autocast."""
    exact = gradients(wk.reference.CriticStep, torch.float64, make, shape)
    with torch.autocast("cpu", torch.bfloat16):
        eager = gradients(wk.reference.CriticStep, torch.float32, make, shape)
    asked = {} if way == "by the caller" else {"precision": "bfloat16"}
    if "channels" in way:
        if len(shape) != 4 or make is NARROW["batch norm"][0]:
            pytest.skip("no program, or no images")
        asked["way"] = "_by_program_in_channels_last"
    with torch.autocast("cpu", torch.bfloat16, enabled="precision" not in asked):
        ours = gradients(wk.CriticStep, torch.float32, make, shape, **asked)
    single = gradients(wk.CriticStep, torch.float32, make, shape)
    error = (ours - exact).norm()
    assert (single - exact).norm() < 0.01 * error  # it is another precision
    assert error <= 2 * (eager - exact).norm()


def test_a_program_rounds_to_bfloat16_what_autocast_does():
    critic = convolutional(nn.LayerNorm((4, 4, 4)))
    step = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=0.1), tune=False, precision="bfloat16")
    with Operators() as seen:
        step(*torch.randn(2, *IMAGE))
    assert step._program is not None
    products = {
        name: dtypes for name, dtypes in seen.dtypes.items() if "convolution" in name or name in ("mm", "addmm")
    }
    assert len(products) >= 3 and all(dtypes == {torch.bfloat16} for dtypes in products.values()), products
    assert all(param.grad.dtype is torch.float32 for param in critic.parameters())


class Operators(TorchDispatchMode):
    """Of each operator that is dispatched, the types of its floating-point tensors."""

    def __init__(self):
        super().__init__()
        self.dtypes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {arg.dtype for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()}
        self.dtypes.setdefault(func.overloadpacket.__name__, set()).update(given)
        return func(*args, **(kwargs or {}))


def test_losses_are_not_rounded_to_bfloat16():
    ours, _, real, fake = pair(convolutional, IMAGE, "gp", torch.float32)
    ours.precision = "bfloat16"
    for value in ours(real, fake).values():
        assert value.dtype is torch.float32 and value != value.bfloat16()


def test_tf32_is_a_setting_of_the_step_alone():
    seen, critic = [], linear(7, 9, 1)
    critic.register_forward_hook(lambda *_: seen.append(torch.backends.cuda.matmul.allow_tf32))
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=0.1), precision="tf32")(*torch.randn(2, *VECTOR))
    assert seen and all(seen)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


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
    for node, _ in ours._program.steps:
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


def test_bad_settings():
    critic = linear(7, 9, 1)
    with pytest.raises(ValueError, match="penalty is 'wgan': expected one of 'gp', 'one-sided', 'r1', None"):
        wk.CriticStep(critic, None, "wgan")
    with pytest.raises(ValueError, match="precision is 'fp16': expected one of None, 'tf32', 'bfloat16'"):
        wk.CriticStep(critic, None, precision="fp16")
    with pytest.raises(ValueError, match="weight is NaN"):
        wk.CriticStep(critic, None, weight=math.nan)
