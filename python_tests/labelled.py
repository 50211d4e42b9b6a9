"""Critics of samples and labels, and their penalties beside the reference's."""

import torch
from torch import nn
from torch.nn import functional as F

import wgan_kernels as wk

BATCH, CLASSES = 6, 5
IMAGE, VECTOR = (1, 4, 4), (4,)


class Planes(nn.Module):
    """The labels as one more channel."""

    def __init__(self, act):
        super().__init__()
        self.emb = nn.Embedding(CLASSES, 16)
        self.body = nn.Sequential(
            nn.Conv2d(2, 6, 3, 2, 1), act(), nn.Conv2d(6, 8, 3, 2, 1), act(), nn.Flatten(), nn.Linear(8, 1)
        )

    def forward(self, x, y):
        return self.body(torch.cat([x, self.emb(y).view(x.size(0), 1, x.shape[2], x.shape[3])], 1))


class OneHot(nn.Module):
    """As more features, in front."""

    def __init__(self, act):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4 + CLASSES, 12), act(), nn.Linear(12, 7), act(), nn.Linear(7, 1))

    def forward(self, x, y):
        return self.body(torch.cat((F.one_hot(y, CLASSES).to(x.dtype), x), dim=-1))


class Embedded(nn.Module):
    """As learnt features, on both sides."""

    def __init__(self, act):
        super().__init__()
        self.emb = nn.Embedding(CLASSES, 3)
        self.body = nn.Sequential(nn.Linear(4 + 6, 12), act(), nn.Linear(12, 1))

    def forward(self, x, y):
        e = self.emb(y)
        return self.body(torch.cat([e, x, torch.tanh(e)], 1))


class Projection(nn.Module):
    """Miyato and Koyama's, with a shift of what it projects."""

    def __init__(self, act):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 9), act(), nn.Linear(9, 6), act())
        self.emb, self.shift, self.out = nn.Embedding(CLASSES, 6), nn.Embedding(CLASSES, 6), nn.Linear(6, 1)

    def forward(self, x, y):
        h = self.features(x) + self.shift(y)
        return self.out(h) + (self.emb(y) * h).sum(1, keepdim=True)


class Modulated(nn.Module):
    """A scale and a shift for each channel, by the label."""

    def __init__(self, act):
        super().__init__()
        self.conv, self.last, self.act = nn.Conv2d(1, 6, 3, 2, 1), nn.Conv2d(6, 1, 2), act()
        self.scale, self.shift = nn.Embedding(CLASSES, 6), nn.Embedding(CLASSES, 6)

    def forward(self, x, y):
        h = torch.mul(self.conv(x), self.scale(y).view(-1, 6, 1, 1))
        h += self.shift(y)[:, :, None, None]
        return self.last(self.act(h)).view(x.shape[0], -1)


CRITICS = {"planes": Planes, "one-hot": OneHot, "embedded": Embedded, "projection": Projection, "modulated": Modulated}
ACTS = {"leaky": lambda: nn.LeakyReLU(0.2), "tanh": nn.Tanh, "none": nn.Identity}


def shape_of(critic):
    return IMAGE if isinstance(critic, (Planes, Modulated)) else VECTOR


def samples(shape, dtype=torch.float64):
    return torch.randn(2, BATCH, *shape, dtype=dtype)


def labels():
    return torch.randint(0, CLASSES, (BATCH,))


def results(of, function, params, real, fake, eps):
    """(the penalty, [what each parameter receives])"""
    penalty = of.gradient_penalty(function, real, fake, eps=eps)
    return penalty, torch.autograd.grad(penalty, params, retain_graph=True, allow_unused=True)


def assert_as_by_calls(function, params, shape, dtype=torch.float64, **tolerance):
    """Returns the penalty."""
    real, fake = samples(shape, dtype)
    eps = torch.rand(BATCH, dtype=dtype)
    tolerance = tolerance or {"rtol": 1e-10, "atol": 1e-13}
    penalty, found = results(wk, function, params, real, fake, eps)
    expected, theirs = results(wk.reference, function, params, real, fake, eps)
    torch.testing.assert_close(penalty, expected, **tolerance)
    assert [grad is None for grad in found] == [grad is None for grad in theirs]
    for ours, other in zip(found, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(ours, other, **tolerance)
    return penalty
