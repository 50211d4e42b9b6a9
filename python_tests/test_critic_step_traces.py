"""CriticStep: a program is made of what the critic does, as it is now, or of nothing."""

import copy
import random

import numpy as np
import pytest
import torch
from critic_steps import assert_same_update, pair
from critics import Residual
from torch import nn
from torch.nn import functional as F

import wgan_kernels as wk


class By(nn.Module):
    """A critic by its forward, (layers…, x) → scores, and its layers."""

    def __init__(self, forward, *layers, **attributes):
        super().__init__()
        self.layers, self.of = nn.ModuleList(layers), forward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.of(self, x, *self.layers)


def linears(*widths):
    return [nn.Linear(wide, wider) for wide, wider in widths]


def augmented(self, x, a, b, c):
    h = a(x)
    y = h
    y += b(x)
    return c(h + y)


def through_a_view(self, x, a, b):
    h = a(x)
    F.relu(h.view(-1, 5, 1).flatten(1), inplace=True)
    return b(h)


def of_a_view(self, x, a, b):
    h = a(x)
    y = F.relu(h.flatten(1), inplace=True)
    return b(h + y)


def scaled(self, x, a, b):
    h = a(x)
    y = h
    y *= 0.5
    return b(torch.tanh(h) + y)


IN_PLACE = {
    "pre-activation residual": lambda: nn.Sequential(
        nn.Linear(7, 5), Residual(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 5))), nn.Linear(5, 1)
    ),
    "leaky residual": lambda: nn.Sequential(
        nn.Linear(7, 5), Residual(nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Linear(5, 5))), nn.Linear(5, 1)
    ),
    "read again": lambda: By(lambda self, x, a, b: b((h := a(x)) + F.relu(h, inplace=True)), *linears((7, 5), (5, 1))),
    "augmented": lambda: By(augmented, *linears((7, 5), (7, 5), (5, 1))),
    "scaled": lambda: By(scaled, *linears((7, 5), (5, 1))),
    "through a view": lambda: By(through_a_view, *linears((7, 5), (5, 1))),
    "of a view": lambda: By(of_a_view, *linears((7, 5), (5, 1))),
}


@pytest.mark.parametrize("make", IN_PLACE.values(), ids=IN_PLACE)
def test_in_place_on_what_is_read_again_is_no_program(make):
    ours, spec, *samples = pair(make, (6, 7))
    assert "in place" in ours.plan
    assert_same_update(ours, spec, *samples)


def test_in_place_on_the_samples_is_no_program():
    for first in (nn.Identity(), nn.Flatten(), nn.Sequential()):
        critic = nn.Sequential(first, nn.Sequential(nn.ReLU(inplace=True)), nn.Linear(7, 1))
        assert "works in place on the samples" in wk.CriticStep(critic, None).plan
    critic = nn.Sequential(nn.Linear(7, 7), nn.ReLU(inplace=True), nn.Linear(7, 1))
    assert "works in place" not in wk.CriticStep(critic, None).plan


def add(h, y):
    h += y
    return h


def half(h):
    h *= 0.5
    h /= 3
    return h


PROGRAMS = {
    "in place on what nobody reads": lambda: nn.Sequential(
        nn.Linear(7, 5),
        Residual(nn.Sequential(nn.Linear(5, 5), nn.Flatten(), nn.ReLU6(inplace=True))),
        nn.Linear(5, 1),
    ),
    "smooth in place": lambda: nn.Sequential(
        nn.Linear(7, 5), nn.SiLU(inplace=True), nn.Linear(5, 5), nn.ELU(inplace=True), nn.Linear(5, 1)
    ),
    "smooth functions in place": lambda: By(
        lambda self, x, a, b: b(F.elu(F.silu(a(x), inplace=True), 1.0, True)), *linears((7, 5), (5, 1))
    ),
    "augmented": lambda: By(lambda self, x, a, b, c: c(half(add(a(x), b(x)))), *linears((7, 5), (7, 5), (5, 1))),
    "a layer that is not used": lambda: By(lambda self, x, a, b: (b(x), a(x))[1], *linears((7, 1), (7, 3))),
    "a linear branch before a curved one": lambda: By(
        lambda self, x, a, b, c: c(a(x) + torch.tanh(b(x))), *linears((7, 5), (7, 5), (5, 1))
    ),
    "a linear branch before a curved one, further in": lambda: By(
        lambda self, x, a, b, c, d: d(a(h := torch.relu(c(x))) + torch.tanh(b(h))),
        *linears((5, 5), (5, 5), (7, 5), (5, 1)),
    ),
}


@pytest.mark.parametrize("make", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(make):
    ours, spec, *samples = pair(make, (6, 7))
    assert ours._way is not None, ours.plan
    assert_same_update(ours, spec, *samples)
    assert ours._way is not None, ours.plan


SPELLINGS = {
    "a size times a number": (lambda self, x, a: a(x.view(x.size(0), x.size(1) * 16)), (6, 2, 4, 4), 32),
    "sizes multiplied": (
        lambda self, x, a: a(x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])), (6, 2, 4, 4), 32,
    ),
    "an axis": (lambda self, x, a: a(x).sum(axis=1), (6, 7), 7),
    "a dtype": (lambda self, x, a: a(x).mean(1, dtype=torch.float64), (6, 7), 7),
}  # fmt: skip


@pytest.mark.parametrize(("forward", "shape", "wide"), SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_that_no_sweeps_are_known_for(forward, shape, wide):
    assert_same_update(*pair(lambda: By(forward, nn.Linear(wide, 3)), shape))


def hooked(critic):
    critic[0].register_forward_hook(lambda module, args, out: 2 * out)


def on_a_parameter(critic):
    critic[0].weight.register_hook(lambda grad: 2 * grad)


def replaced(critic):
    torch.manual_seed(9)
    critic[1] = nn.Tanh()


def sloped(critic):
    critic[1].negative_slope = 0.7


def extended(critic):
    torch.manual_seed(9)
    critic.append(nn.Linear(1, 1).double())


CHANGES = {
    "hook": hooked,
    "hook on a parameter": on_a_parameter,
    "layer": replaced,
    "attribute": sloped,
    "one more": extended,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_between_steps_counts(change):
    ours, spec, *samples = pair(lambda: nn.Sequential(nn.Linear(7, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1)), (6, 7))
    assert_same_update(ours, spec, *samples)
    for step in (ours, spec):
        change(step.critic)
        step.critic.requires_grad_(True)
    assert_same_update(ours, spec, *samples)


def test_another_forward_for_the_class(monkeypatch):
    ours, spec, *samples = pair(lambda: By(lambda self, x, a, b: b(torch.relu(a(x))), *linears((7, 5), (5, 1))), (6, 7))
    assert_same_update(ours, spec, *samples)
    monkeypatch.setattr(By, "forward", lambda self, x: self.layers[1](torch.tanh(self.layers[0](x))))
    assert_same_update(ours, spec, *samples)
    assert "tanh" in ours.plan


def test_a_number_that_fades_in():
    ours, spec, *samples = pair(
        lambda: By(lambda self, x, a, b: b(F.relu(a(x)) * self.alpha), *linears((7, 5), (5, 1)), alpha=0.25), (6, 7)
    )
    for alpha in (0.25, 0.5, 1.0):
        ours.critic.alpha = spec.critic.alpha = alpha
        assert_same_update(ours, spec, *samples)
        assert ours._way is not None


def draws(self, x, a, b):
    return b(x + torch.tanh(a(x)) if torch.rand(()) < 0.5 else x)


def draws_in_python(self, x, a, b):
    return b(x + torch.tanh(a(x)) if random.random() < 0.5 else x)


def draws_by_numpy(self, x, a, b):
    return b(torch.tanh(a(x)) * np.random.rand())


def counts(self, x, a, b):
    self.seen += 1
    return b(torch.tanh(a(x)) * self.seen)


def keeps(self, x, a, b):
    self.seen = torch.tanh(a(x))
    return b(self.seen)


def collects(self, x, a, b):
    self.seen.append(torch.tanh(a(x)))
    return b(self.seen[-1])


def notes(self, x, a, b):
    self.seen["features"] = torch.tanh(a(x))
    return b(self.seen["features"])


OWN = {
    "random numbers": (draws, None, "draws random numbers"),
    "random numbers of Python's": (draws_in_python, None, "draws random numbers"),
    "random numbers of NumPy's": (draws_by_numpy, None, "draws random numbers"),
    "a count of calls": (counts, 0, "changes seen of a By"),
    "features for later": (keeps, None, "changes seen of a By"),
    "a list": (collects, [], "changes seen of a By"),
    "a dictionary": (notes, {}, "changes seen of a By"),
}


@pytest.mark.parametrize(("forward", "seen", "why"), OWN.values(), ids=OWN)
def test_what_a_forward_does_beside_its_scores_is_done_at_each_call(forward, seen, why):
    ours, spec, *samples = pair(lambda: By(forward, *linears((7, 7), (7, 1)), seen=copy.copy(seen)), (6, 7))
    for seed in range(4):
        state = random.Random(seed).getstate(), np.random.RandomState(seed).get_state()
        drawn = []
        for step in (ours, spec):
            random.setstate(state[0])
            np.random.set_state(state[1])
            torch.manual_seed(seed)
            step(*samples)
            drawn.append((random.random(), np.random.rand(), torch.rand(())))
        assert drawn[0] == drawn[1]
        for one, other in zip(ours.critic.parameters(), spec.critic.parameters(), strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(ours.critic.seen, spec.critic.seen)
        assert why in ours.plan


def without_gradients(self, x, a, b):
    with torch.no_grad():
        h = torch.tanh(a(x))
    return b(h + x)


@torch.no_grad()
def apart(a, x):
    return torch.tanh(a(x))


def switched(self, x, a, b):
    torch.set_grad_enabled(False)
    h = torch.tanh(a(x))
    torch.set_grad_enabled(True)
    return b(h + x)


def without_autocast(self, x, a, b):
    h = torch.tanh(a(x))
    with torch.autocast("cpu", enabled=False):
        return b(h.float())


def in_autocast(self, x, a, b):
    with torch.autocast("cpu", torch.bfloat16):
        h = a(x)
    return b(torch.tanh(h) + x)


CONTEXTS = {
    "a block": without_gradients,
    "a decorator": lambda self, x, a, b: b(apart(a, x) + x),
    "a switch": switched,
    "no autocast": without_autocast,
    "autocast": in_autocast,
}


@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("forward", CONTEXTS.values(), ids=CONTEXTS)
def test_what_a_forward_turns_on_or_off(forward, precision):
    ours, spec, *samples = pair(lambda: By(forward, *linears((7, 7), (7, 1))), (6, 7), dtype=torch.float32)
    ours.precision = precision
    torch.manual_seed(5)
    found = ours(*samples)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        expected = spec(*samples)
    assert "turns gradients or autocast on or off" in ours.plan
    tolerance = {"rtol": 1e-2, "atol": 2e-2} if precision else {"rtol": 1e-4, "atol": 1e-5}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.float(), **tolerance)
    for one, other in zip(ours.critic.parameters(), spec.critic.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)


LAYERS = {"norm": (nn.BatchNorm1d(5), False), "dropout": (nn.Dropout(0.5), True)}


@pytest.mark.parametrize(("layer", "has_program"), LAYERS.values(), ids=LAYERS)
def test_modes(layer, has_program):
    """has_program: in training, too."""
    ours, spec, *samples = pair(
        lambda: nn.Sequential(nn.Linear(7, 5), layer, nn.ReLU(), nn.Linear(5, 1)).eval(), (6, 7)
    )
    for training in (False, True, False):
        for step in (ours, spec):
            step.critic.train(training)
        assert_same_update(ours, spec, *samples)
        assert (ours._way is not None) == (has_program or not training)
    ours.critic.train()
    assert ours.plan.startswith("value" if has_program else "gradient_penalty and backward: 1 (")


def test_another_backend_for_one_step():
    ours, spec, *samples = pair(lambda: nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 1)), (6, 7))
    with wk.use_backend("reference"):
        assert_same_update(ours, spec, *samples)
        assert "no kernels" in ours.plan or ours._way is None
    assert_same_update(ours, spec, *samples)


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_the_eps_of_rms_norm_in_bfloat16(eps):
    """PyTorch's versions differ in what None stands for, so a program leaves it to them."""
    errors = []
    for kind in (wk.CriticStep, wk.reference.CriticStep):
        torch.manual_seed(0)
        critic = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.RMSNorm(4, eps=eps), nn.Linear(4, 1))
        real, fake = 0.1 * torch.randn(2, 64, 4)
        exact = wk.reference.CriticStep(
            copy.deepcopy(critic).double(), torch.optim.SGD(critic.parameters(), lr=0.0), "r1", 3.0
        )(real.double(), fake.double())["loss"]
        step = kind(critic, torch.optim.SGD(critic.parameters(), lr=0.0), "r1", 3.0, tune=False)
        with torch.autocast("cpu", torch.bfloat16):
            errors.append((step(real, fake)["loss"] - exact).abs().item())
    assert errors[0] <= 2 * errors[1] + 1e-3


def test_no_sample_at_all():
    ours, _, *samples = pair(lambda: nn.Linear(7, 1), (0, 7))
    with pytest.raises(ValueError, match="real: expected at least one sample"):
        ours(*samples)


@pytest.mark.parametrize("penalty", ["gp", None])
def test_a_critic_that_returns_no_tensor(penalty):
    net = nn.Linear(7, 1)
    step = wk.CriticStep(lambda x: (net(x),), torch.optim.SGD(net.parameters(), lr=0.1), penalty)
    with pytest.raises(TypeError, match="critic: expected it to return a tensor of scores, got tuple"):
        step(*torch.randn(2, 5, 7))
    assert net.weight.grad is None


def test_a_layer_that_holds_its_critic():
    critic = By(lambda self, x, a: a(x), nn.Linear(4, 1))
    critic.layers[0].critic = critic
    step = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), tune=False)
    assert step(*torch.randn(2, 3, 4))["loss"].isfinite()


class Remembers(nn.Module):
    """Keeps what it has seen, and adds a tensor of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen, self.shift = nn.Linear(7, 1), None, torch.ones(1)

    def forward(self, x):
        self.seen = self.layer(x)
        return self.seen + self.shift


def test_tracing_leaves_the_critic_as_it_was():
    critic = Remembers()
    before = dict(vars(critic))
    assert "it uses a tensor that is no layer's" in wk.CriticStep(critic, wk.optim.Adam(critic.parameters())).plan
    assert vars(critic) == before


def test_tracing_leaves_other_modules_alone():
    """Those of other threads, too: they are called as ever."""
    bystander, y = nn.Linear(7, 7), torch.randn(2, 7)
    critic = By(lambda self, x, a: a(x) if torch.equal(bystander(y), bystander(y)) else a(-x), *linears((7, 1)))
    assert "pullback" in wk.CriticStep(critic, wk.optim.Adam(critic.parameters())).plan
