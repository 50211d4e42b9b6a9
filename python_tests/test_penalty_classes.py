"""Penalties of critics with a forward of their own: one node where it only says which layers the samples go through."""

import gc
import math
import random
import weakref

import pytest
import torch
from critics import Residual, is_one_node
from test_penalty_program import assert_same, perceptron, results
from torch import nn
from torch.nn import functional as F

import wgan_kernels as wk
from wgan_kernels.one_pass.trace import reads

SLOPE = 0.3
COUNT = [0]


class Critic(nn.Module):
    """Of four numbers a sample; ``of`` gives it a forward."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)])
        self.slope, self.scales, self.scale = 0.2, [0.5], nn.Parameter(torch.ones(1))
        self.unread = nn.Parameter(torch.ones(1))


def of(forward, **methods):
    torch.manual_seed(3)
    return type("Of", (Critic,), {"forward": forward, **methods})().double()


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = perceptron()

    def forward(self, x):
        out = self.main(x)
        return out.view(-1, 1).squeeze(1)


class Doubled(Wrapped):
    def forward(self, x):
        scores = super().forward(x)
        return scores + scores


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 2, 1)
        self.blocks = nn.ModuleList(Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))) for _ in range(2))
        self.norm, self.head = None, nn.Linear(64, 1)

    def forward(self, x):
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.norm is not None and i < len(self.blocks):
                x = self.norm(x)
        return self.head(F.leaky_relu(x, SLOPE).view(x.size(0), -1))


def functional(self, x):
    """As most do."""
    x = F.leaky_relu(self.first(x), self.slope)
    x = self.second(x)
    x = F.relu(x, inplace=True) if self.training else torch.relu(x)
    return self.last(torch.flatten(x, 1))


def looped(self, x):
    for layer in self.layers:
        x = layer(x)
    return x


def joined(self, x):
    x = self.first(x)
    y = self.second(F.relu(x))
    y += x
    return self.last(y)


def by_a_method(self, x):
    return self.last(self.features(x))


def features(self, x):
    return F.relu(self.first(x))


class Pooled(nn.Module):
    def __init__(self, average):
        super().__init__()
        self.inner, self.last, self.average = nn.Conv2d(1, 4, 3), nn.Linear(4, 1), average

    def forward(self, x):
        x = self.inner(F.avg_pool2d(x, 2))
        x = x.mean((2, 3)) if self.average else F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.last(x) * 0.5


class Maxima(nn.Module):
    """Of one function after another."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.line = nn.Conv2d(1, 4, 3), nn.Linear(4, 1), nn.Conv1d(4, 4, 2)

    def forward(self, x):
        x = F.max_pool2d(F.silu(self.inner(x)), 2, stride=1, padding=1)
        x = torch.tanh(F.adaptive_max_pool2d(torch.max_pool2d(x, (2, 1)), (2, 3)))
        x = F.max_pool1d(F.gelu(self.line(x.flatten(2))), kernel_size=2)
        return self.last(F.elu(F.softplus(x, 2.0)).mean(2))


TRANSPARENT = {
    "maxima and curves": (Maxima, (5, 1, 8, 8)),
    "a mean": (lambda: Pooled(True), (5, 1, 8, 8)),
    "an adaptive average": (lambda: Pooled(False), (5, 1, 8, 8)),
    "a sequence within": (Wrapped, (5, 4)),
    "its parent's": (Doubled, (5, 4)),
    "residual blocks": (Blocks, (5, 1, 8, 8)),
    "functions": (lambda: of(functional), (5, 4)),
    "a loop": (lambda: of(looped), (5, 4)),
    "a join": (lambda: of(joined), (5, 4)),
    "a method": (lambda: of(by_a_method, features=features), (5, 4)),
    "a subclass of Sequential": (lambda: type("Sequence", (nn.Sequential,), {})(*perceptron()), (5, 4)),
    "one within a Sequential": (lambda: nn.Sequential(Wrapped(), nn.Identity()), (5, 4)),
}


@pytest.mark.parametrize(("make", "shape"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_value_and_gradients(make, shape):
    critic, x = make().double(), torch.randn(shape).double()
    before, attributes = x.clone(), [dict(vars(part)) for part in critic.modules()]
    assert is_one_node(wk.r1_penalty(critic, x))
    for mode in (True, False):
        critic.train(mode)
        for _ in range(2):
            assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))
    critic.train()
    assert torch.equal(x, before) and attributes == [vars(part) for part in critic.modules()]


def stores(self, x):
    self.seen = self.first(x)
    return self.last(F.relu(self.seen))


def appends(self, x):
    self.scales.append(1)
    return self.last(self.first(x))


def appends_to_another(self, x):
    scales = self.scales
    scales[0] += 1
    return self.last(self.first(x))


def counts(self, x):
    COUNT[0] += 1
    return self.last(self.first(x))


def reads_a_list(self, x):
    return self.last(self.first(x) * self.scales[0])


def by_chance(self, x):
    return self.last(self.first(x) if random.random() < 0.5 else -self.first(x))


def by_torchs_chance(self, x):
    return self.last(self.first(x) * torch.rand(1).item())


def draws(self, x):
    torch.rand(1)
    return self.last(self.first(x))


def changes_its_mode(self, x):
    self.train()
    return self.last(self.first(x))


def parameter(self, x):
    return self.last(self.first(x) * self.scale)


def catches(self, x):
    try:
        return self.last(self.first(x).view(4, 7))
    except RuntimeError:
        return self.last(self.first(x))


def detaches(self, x):
    with torch.no_grad():
        y = self.second(self.first(x))
    return self.last(F.relu(self.first(x)) + y)


def by_an_inner_function(self, x):
    return (lambda y: self.last(F.relu(y)))(self.first(x))


def by_a_name(self, x):
    return self.last(getattr(self, "first")(x))  # noqa: B009


def by_a_property(self, x):
    return self.last(self.inner(x))


OTHERS = {
    "an attribute": of(stores),
    "a list": of(appends),
    "a list by another name": of(appends_to_another),
    "a global variable": of(counts),
    "a number of a list": of(reads_a_list),
    "chance": of(by_chance),
    "PyTorch's chance": of(by_torchs_chance),
    "a number drawn": of(draws),
    "the mode": of(changes_its_mode),
    "an exception": of(catches),
    "a context": of(detaches),
    "an inner function": of(by_an_inner_function),
    "a name": of(by_a_name),
    "a property": of(by_a_property, inner=property(lambda self: self.first)),
    "a static method": of(by_a_method, features=staticmethod(lambda x: x[:, :1].expand(-1, 6))),
    "a list among the defaults": of(lambda self, x, of=[1]: self.last(self.first(x) * of[0])),
    "getattr": of(looped, __getattr__=lambda self, name: nn.Module.__getattr__(self, name)),
    "call": of(looped, __call__=lambda self, x: -nn.Module.__call__(self, x)),
    "a layer alone": nn.Linear(4, 1).double(),
}


@pytest.mark.parametrize("critic", OTHERS.values(), ids=OTHERS)
def test_python_that_does_more_is_run(critic):
    assert reads(critic) is None
    x = torch.randn(5, 4).double()
    for _ in range(2):
        assert not is_one_node(wk.r1_penalty(critic, x))


def test_python_that_counts_is_run_each_time():
    critic, x = of(counts), torch.randn(5, 4).double()
    before = COUNT[0]
    for _ in range(3):
        wk.gradient_penalty(critic, x, -x).backward()
    assert COUNT[0] == before + 3


def test_what_it_reads_is_read_anew(monkeypatch):
    critic, x = of(by_a_method, features=features), torch.randn(5, 4).double()
    kind = type(critic)

    def check():
        assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))

    check()
    kind.features = lambda self, x: F.leaky_relu(self.first(x), 0.7)
    check()
    kind.forward = lambda self, x: self.last(F.leaky_relu(self.first(x), SLOPE))
    check()
    monkeypatch.setattr(f"{__name__}.SLOPE", 0.9)
    check()
    kind.forward.__code__ = (lambda self, x: self.last(F.leaky_relu(self.second(self.first(x)), 0.1))).__code__
    check()
    kind.forward = functional
    check()
    critic.slope = 0.6
    check()
    critic.eval()
    check()
    critic.second = nn.Linear(6, 6, bias=False).double()
    check()


def test_numbers_of_math():
    critic, x = of(lambda self, x: self.last(F.leaky_relu(self.first(x), math.sqrt(0.04)))), torch.randn(5, 4).double()
    assert is_one_node(wk.r1_penalty(critic, x))
    assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))


def test_a_critic_that_is_gone_leaves_nothing_behind():
    critic, x = Blocks().double(), torch.randn(2, 1, 8, 8).double()
    wk.r1_penalty(critic, x).backward()
    gone = weakref.ref(critic)
    del critic
    gc.collect()
    assert gone() is None
