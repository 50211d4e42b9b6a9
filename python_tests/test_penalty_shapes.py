"""Penalties of critics whose Python reckons with the shape of its samples, that couple them, that compute their layers'
weights themselves, or have operations without sweeps: one node, too, written down for one shape where it must be.
"""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from critics import is_one_node
from torch import nn

import wgan_kernels as wk
from wgan_kernels.one_pass.known import _MOST_SHAPES, known_of

BATCH, IMAGE = 8, (1, 12, 12)


def leaky(x):
    return F.leaky_relu(x, 0.2)


def convolutions(*behind, channels=4):
    layers = [nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, channels, 3, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, *behind)


class Of(nn.Module):
    """A critic with this forward; ``net``: two convolutions; ``more``, ``last``: one more, and the scores."""

    def __init__(self, forward, more=4, last=144):
        super().__init__()
        self.net, self.more, self.last = convolutions(), nn.Conv2d(more, 4, 3, padding=1), nn.Linear(last, 1)
        self.gamma, self.groups = nn.Parameter(torch.full([1], 0.3)), 4
        self.register_buffer("shift", torch.linspace(-1, 1, 36).view(6, 6))
        type(self).forward = forward


def of(forward, **sizes):
    return lambda: type("Critic", (Of,), {})(forward, **sizes)


def flat_by_len(self, x):
    return self.last(self.more(self.net(x)).view(len(x), -1))


def flat_by_unpacking(self, x):
    x = self.more(self.net(x))
    b, c, h, w = x.shape
    return self.last(x.view(b, c * h * w))


def by_its_size(self, x):
    x = self.net(x)
    if x.dim() == 4 and min(x.size(2), 6) == x.shape[-1]:
        x = leaky(self.more(x))
    return self.last(x.reshape(x.size(0), x.numel() // len(x)))


def with_statistics(self, x):
    """ProGAN's."""
    x = self.net(x)
    spread = torch.std(x, dim=0).mean().repeat(x.shape[0], 1, x.shape[2], x.shape[3])
    return self.last(leaky(self.more(torch.cat([x, spread], dim=1))).flatten(1))


def with_statistics_of_groups(self, x):
    """StyleGAN2's."""
    x = self.net(x)
    batch, channels, height, width = x.shape
    group = min(batch, self.groups)
    spread = x.view(group, -1, 1, channels, height, width)
    spread = torch.sqrt(spread.var(0, unbiased=False) + 1e-8).mean([2, 3, 4], keepdim=True).squeeze(2)
    return self.last(leaky(self.more(torch.cat([x, spread.repeat(group, 1, height, width)], 1))).view(batch, -1))


def with_attention(self, x):
    """SAGAN's, with one convolution for query, key and value."""
    x = self.net(x)
    b, c, h, w = x.size()
    query, key, value = (
        self.more(x).view(b, -1, h * w),
        self.more(x).view(b, -1, h * w),
        self.more(x).view(b, -1, h * w),
    )
    attended = torch.bmm(value, torch.softmax(torch.bmm(query.permute(0, 2, 1), key), -1).permute(0, 2, 1))
    return self.last((self.gamma * attended.view(b, c, h, w) + x).flatten(1))


def with_tensors_of_its_own(self, x):
    return self.last((leaky(self.more(self.net(x))) * self.gamma + self.shift).flatten(1))


def with_others_between(self, x):
    x = 1 - self.net(x) / 3
    return self.last((self.more(self.more(x)).abs() - x).flatten(1))


def with_a_linear_end(self, x):
    return self.last(self.net(x).permute(0, 2, 3, 1).transpose(1, 2).flatten(1))


def over_what_it_reads(self, x):
    y = self.net(x)
    y -= self.shift
    return self.last(self.more(y).flatten(1))


class Equalised(nn.Module):
    """Convolution with the equalised learning rate of ProGAN."""

    def __init__(self, inside, outside, kernel, **how):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outside, inside, kernel, kernel))
        self.bias, self.how, self.scale = nn.Parameter(torch.zeros(outside)), how.get("stride", 1), 0.4

    def forward(self, x):
        return F.conv2d(x, self.weight * self.scale, bias=self.bias, stride=self.how, padding=1)


class EqualisedLinear(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outside, inside)), nn.Parameter(torch.zeros(outside))
        self.scale, self.lr = inside**-0.5, 0.5

    def forward(self, x):
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class OfAnothersWeight(nn.Module):
    """The scale beside a layer, and its bias apart from it."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 4, 4, 2, 1, bias=False), 0.7
        self.bias, self.last = nn.Parameter(torch.randn(4)), nn.Linear(144, 1)

    def forward(self, x):
        x = self.conv(x * self.scale) + self.bias.view(1, self.bias.shape[0], 1, 1)
        x = F.conv_transpose2d(leaky(x), self.conv.weight, stride=2, padding=1)
        return self.last(leaky(x).flatten(1))


CRITICS = {
    "len": of(flat_by_len),
    "unpacking": of(flat_by_unpacking),
    "a size asked for": of(by_its_size),
    "minibatch statistics": of(with_statistics, more=5),
    "statistics of groups": of(with_statistics_of_groups, more=5),
    "attention": of(with_attention),
    "tensors of its own": of(with_tensors_of_its_own),
    "others between": of(with_others_between),
    "a linear end": of(with_a_linear_end),
    "in place": of(over_what_it_reads),
    "equalised": lambda: nn.Sequential(
        Equalised(1, 4, 4, stride=2), nn.ReLU(), Equalised(4, 4, 3), nn.Tanh(), nn.Flatten(), EqualisedLinear(144, 1)
    ),
    "equalised vectors": lambda: nn.Sequential(
        nn.Flatten(), EqualisedLinear(144, 9), nn.ReLU(), EqualisedLinear(9, 5), nn.ReLU(), EqualisedLinear(5, 1)
    ),
    "another's weight": OfAnothersWeight,
    "padding by reflection": lambda: nn.Sequential(
        nn.ReflectionPad2d(1), *convolutions(), nn.Flatten(), nn.Linear(196, 1)
    ),
}


def pair(name, batch=BATCH):
    for _ in range(2):
        torch.manual_seed(1)
        yield CRITICS[name]().double(), torch.randn(batch, *IMAGE, dtype=torch.float64)


def penalised(of, critic, x):
    eps = torch.linspace(0, 1, len(x), dtype=x.dtype)
    return of.gradient_penalty(critic, x, x.flip(0) / 2, eps=eps)


def assert_same(ours, theirs, rtol=1e-10, atol=1e-12):
    scale = max(1.0, *(t.abs().max().item() for t in theirs if t is not None))
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol * scale)


def results(of, critic, x):
    """The value; what parameters receive, twice, and by a graph; what they receive in the third order."""
    value, params = penalised(of, critic, x), list(critic.parameters())
    first, second = (torch.autograd.grad(value, params, retain_graph=True, allow_unused=True) for _ in range(2))
    graph = torch.autograd.grad(value, params, create_graph=True, allow_unused=True)
    total = sum(grad.square().sum() for grad in graph if grad is not None)
    third = torch.autograd.grad(total, params, allow_unused=True)
    return [value, *first, *second, *graph, *third]


every = pytest.mark.parametrize("name", CRITICS)


@every
def test_as_autograd(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        assert is_one_node(penalised(of, critic, x)) is (of is wk)
        found.append(results(of, critic, x))
    assert_same(*found, rtol=1e-9)


@every
def test_frozen(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        for param in list(critic.parameters())[::2]:
            param.requires_grad_(False)
        value, params = penalised(of, critic, x), [p for p in critic.parameters() if p.requires_grad]
        found.append([value.detach(), *torch.autograd.grad(value, params, allow_unused=True)])
    assert_same(*found)


@every
def test_without_gradients(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        with torch.no_grad():
            found.append([penalised(of, critic, x), penalised(of, critic, x[:4])])
    assert_same(*found)


@every
def test_in_single_precision_and_channels_last_memory(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name, 32), strict=True):
        critic, x = critic.float(), x.float()
        value, params = penalised(of, critic, x), list(critic.parameters())
        found.append([value.detach(), *torch.autograd.grad(value, params, allow_unused=True)])
    assert_same(*found, rtol=1e-4, atol=1e-5)


@every
def test_by_a_function_of_somebodys_own(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        value = penalised(of, lambda x, critic=critic: critic(x) * 2, x)
        assert is_one_node(value) is (of is wk)
        found.append([value.detach(), *torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)])
    assert_same(*found)


def test_shapes_in_turn():
    (critic, _), (other, _) = pair("statistics of groups")
    for batch in (8, 4, 8, 3, 1, 4):
        x = torch.randn(batch, *IMAGE, dtype=torch.float64)
        assert is_one_node(penalised(wk, critic, x)) or batch == 1
        assert_same(results(wk, critic, x), results(wk.reference, other, x), rtol=1e-8)


def shifted(self, x):
    return self.last((self.net(x) + self.shift).flatten(1))


def scaled(self, x):
    return self.last((self.net(x) * self.shift).flatten(1))


@pytest.mark.parametrize("forward, raises", [(shifted, False), (scaled, True), (with_tensors_of_its_own, False)])
def test_a_buffer_that_is_written_over_is_noticed_where_it_matters(forward, raises):
    found = []
    for library in (wk, wk.reference):
        torch.manual_seed(1)
        critic, x = of(forward)().double(), torch.randn(BATCH, *IMAGE, dtype=torch.float64)
        value = penalised(library, critic, x)
        assert is_one_node(value) is (library is wk)
        critic.shift.mul_(2)
        if raises:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                value.backward()
        else:
            found.append(torch.autograd.grad(value, list(critic.parameters()), allow_unused=True))
    if not raises:
        assert_same(*found)


def by_its_type(self, x):
    return self.last(self.net(x).view(len(x), -1)) * (2 if x.dtype == torch.float64 else 1)


def test_another_type():
    critic, x = of(by_its_type)(), torch.randn(BATCH, *IMAGE)
    single = penalised(wk, critic, x)
    assert is_one_node(single)
    critic.double()
    double = penalised(wk, critic, x.double())
    assert is_one_node(double)
    torch.testing.assert_close(double, penalised(wk.reference, critic, x.double()))


def beside(critic, labels):
    return lambda x: critic(x + labels.view(1, len(x), *IMAGE[1:]).mean(1, keepdim=True) * labels.shape[0])


@pytest.mark.parametrize("shape", [(BATCH, 1), (1, BATCH)])
def test_what_lies_beside_the_samples_may_have_another_shape(shape):
    """Its numbers are never written down."""
    (critic, x), _ = pair("len")
    for sizes in (shape, (BATCH,)):
        function = beside(critic, torch.randn(*sizes, *IMAGE[1:], dtype=torch.float64))
        torch.testing.assert_close(penalised(wk, function, x), penalised(wk.reference, function, x))


def test_too_many_shapes_are_called():
    (critic, _), (other, _) = pair("len")
    for batch in range(1, _MOST_SHAPES + 4):
        x = torch.randn(batch, *IMAGE, dtype=torch.float64)
        assert is_one_node(penalised(wk, critic, x)) is (batch <= _MOST_SHAPES)
        torch.testing.assert_close(penalised(wk, critic, x), penalised(wk.reference, other, x))


@pytest.mark.parametrize("change", ["a number", "a parameter", "a buffer", "a weight"])
def test_what_changes_between_calls_counts(change):
    names = {"a number": "statistics of groups", "a weight": "equalised"}
    (critic, x), (other, _) = pair(names.get(change, "tensors of its own"))
    penalised(wk, critic, x)
    for each in (critic, other):
        torch.manual_seed(5)
        if change == "a number":
            each.groups = 2
        elif change == "a parameter":
            each.gamma = nn.Parameter(torch.randn(4, 1, 1, dtype=torch.float64))
        elif change == "a buffer":
            each.shift.mul_(2)
        else:
            each[2].scale = 0.9
    assert_same(results(wk, critic, x), results(wk.reference, other, x), rtol=1e-9)


def test_a_critic_that_is_gone_is_forgotten():
    (critic, x), _ = pair("tensors of its own")
    penalised(wk, critic, x).backward()
    assert known_of(critic, x) is not None
    gone = weakref.ref(critic)
    del critic
    gc.collect()
    assert gone() is None


def test_critic_steps_do_without_what_couples_samples():
    (critic, x), _ = pair("minibatch statistics")
    step = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.0), tune=False)
    assert step(x, x.flip(0))["loss"].isfinite()
    assert "no sweeps are known" in step.plan


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = convolutions(nn.Flatten(), nn.Linear(144, 1))

    def forward(self, x):
        return self.net(x + torch.randn(x.shape, dtype=x.dtype))


class Clipping(Drawing):
    def forward(self, x):
        return self.net(x.clone().clamp_(-1, 1))


class Detaching(Drawing):
    def forward(self, x):
        return self.net(x) + self.net(x.detach())


class Branching(Drawing):
    def forward(self, x):
        return self.net(x) if x.mean() > 0 else self.net(-x)


@pytest.mark.parametrize("kind", [Drawing, Clipping, Detaching, Branching])
def test_others_are_called(kind):
    torch.manual_seed(1)
    critic, x = kind().double(), torch.randn(BATCH, *IMAGE, dtype=torch.float64)
    found = []
    for of in (wk, wk.reference):
        torch.manual_seed(2)
        value = penalised(of, critic, x)
        assert not is_one_node(value)
        found.append([value.detach(), *torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)])
    assert_same(*found)
