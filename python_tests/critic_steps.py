"""Critics for CriticStep, and its update beside the reference's."""

import copy
import itertools

import torch
from critics import Residual, is_on_a_kink
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

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


def with_weights(computed, critic):
    for layer in critic.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            computed(layer)
    return critic


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
    "activations in a row": (
        lambda: nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Hardtanh(-1.0, 0.5), nn.LeakyReLU(), nn.Linear(9, 1)),
        VECTOR,
    ),
    "an activation of what another layer reads": (
        lambda: nn.Sequential(nn.Linear(7, 9), Both(nn.ReLU(), nn.Linear(9, 9)), nn.LeakyReLU(), nn.Linear(9, 1)),
        VECTOR,
    ),
    "an activation of a view of what another one reads": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            Both(nn.Sequential(nn.Flatten(), nn.ReLU()), nn.Sequential(nn.Hardtanh(), nn.Flatten())),
            nn.Linear(144, 1),
        ),
        IMAGE,
    ),
    "an activation before a mean": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU6(), nn.Linear(4, 1)
        ),
        IMAGE,
    ),
    "activations that are joined": (
        lambda: nn.Sequential(
            nn.Linear(7, 9),
            nn.Tanh(),
            Both(nn.ReLU(), nn.LeakyReLU()),
            nn.Hardtanh(),
            Both(nn.ReLU(), nn.Flatten()),
            nn.Linear(9, 1),
        ),
        VECTOR,
    ),
    "batch norm in evaluation": (lambda: convolutional(nn.BatchNorm2d(4)).eval(), IMAGE),
    "prelu": (lambda: convolutional(activation=nn.PReLU), IMAGE),
    "pools": (lambda: convolutional(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)), IMAGE),
    "adaptive pool": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 12, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 1)
        ),
        IMAGE,
    ),
    "dropout": (lambda: convolutional(nn.Dropout(0.3)), IMAGE),
    "dropout in place": (lambda: nn.Sequential(nn.Linear(7, 9), nn.Dropout(0.4, True), nn.Linear(9, 1)), VECTOR),
    "dropout of samples": (lambda: nn.Sequential(nn.Dropout(0.2), *linear(7, 9, 5, 1, activation=nn.SiLU)), VECTOR),
    "dropout of channels": (lambda: convolutional(nn.Dropout2d(0.3), nn.Tanh(), nn.Dropout(0.2)), IMAGE),
    "dropout behind a norm": (lambda: convolutional(nn.LayerNorm((4, 4, 4)), nn.Dropout(0.2)), IMAGE),
    "weight norm": (lambda: with_weights(parametrizations.weight_norm, convolutional()), IMAGE),
    "orthogonal": (lambda: with_weights(parametrizations.orthogonal, linear(7, 9, 5, 1)), VECTOR),
    "spectral norm in evaluation": (
        lambda: with_weights(parametrizations.spectral_norm, convolutional()).eval(),
        IMAGE,
    ),
    "spectral norm by hooks in evaluation": (
        lambda: with_weights(nn.utils.spectral_norm, linear(7, 9, 5, 1, activation=nn.Tanh)).eval(),
        VECTOR,
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


def steps(critic, penalty="gp", tune=False, **how):
    """(ours, the reference's) step over equal critics."""
    twin = copy.deepcopy(critic)
    ours = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=1e-3), penalty, 3.0, tune=tune, **how)
    return ours, wk.reference.CriticStep(twin, torch.optim.SGD(twin.parameters(), lr=1e-3), penalty, 3.0)


def pair(make, shape, penalty="gp", dtype=torch.float64, tune=False):
    """Both steps, and real and fake samples."""
    torch.manual_seed(3)
    critic = make()
    critic = critic.double() if dtype is torch.float64 else critic
    real, fake = torch.randn(shape, dtype=dtype), 2 * torch.randn(shape, dtype=dtype)
    return *steps(critic, penalty, tune), real, fake


def is_decided_by_rounding(critic, real, fake, condition, penalty):
    """Whether a gradient is 0 but for rounding, which the penalty's derivative divides by, or a sign is rounding's."""
    critic = copy.deepcopy(critic)
    torch.manual_seed(5)
    points = real if penalty == "r1" else wk.reference.interpolate(real, fake)
    gradient = wk.reference.penalty.input_gradient(lambda x: critic(x, *condition), points)
    norms = gradient.flatten(1).norm(dim=1)
    return ((norms > 0) & (norms < 1e-9)).any() or any(
        is_on_a_kink(critic, x, *condition) for x in (real, fake, points)
    )


def assert_same_update(ours, spec, real, fake, *condition, **tolerance):
    tolerance = {"rtol": 1e-9, "atol": 1e-11} | tolerance
    torch.manual_seed(5)
    actual, drawn = ours(real, fake, *condition), torch.get_rng_state()
    torch.manual_seed(5)
    expected = spec(real, fake, *condition)
    assert torch.equal(torch.get_rng_state(), drawn)
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
    for mine, other in zip(ours.critic.buffers(), spec.critic.buffers(), strict=True):
        torch.testing.assert_close(mine, other, **tolerance)
