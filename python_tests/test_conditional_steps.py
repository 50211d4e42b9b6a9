"""Steps of conditional critics and generators, and of critics with tensors of their own, are those of plain loops."""

import copy

import hypothesis
import pytest
import torch
from critic_steps import assert_same_update, is_decided_by_rounding, steps
from critics import critics
from hypothesis import given
from hypothesis import strategies as st
from labelled import ACTS, BATCH, CLASSES, CRITICS, VECTOR, Embedded, OneHot, Planes, labels, shape_of
from perceptrons import Counting
from test_penalty_shapes import CRITICS as OF_SHAPES
from test_penalty_shapes import IMAGE
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import wgan_kernels as wk
from wgan_kernels.one_pass.perceptron import Perceptron

PENALTIES = ["gp", "one-sided", "r1", None]


def samples(shape, batch=BATCH, dtype=torch.float64):
    return torch.randn(batch, *shape, dtype=dtype), 2 * torch.randn(batch, *shape, dtype=dtype)


def is_by_program(step):
    return step._way is not None


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("kind", CRITICS.values(), ids=CRITICS)
def test_labels(kind, act, penalty):
    ours, spec = steps(kind(act).double(), penalty)
    for batch in (BATCH, 1, 4):
        real, fake = samples(shape_of(spec.critic), batch)
        assert_same_update(ours, spec, real, fake, torch.randint(0, CLASSES, (batch,)))
    assert is_by_program(ours) or penalty is None, ours.plan


@pytest.mark.parametrize("name", ["tensors of its own", "equalised", "equalised vectors", "another's weight"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("batch", [1, 6, 8])
def test_operations_of_tensors_of_its_own(name, penalty, batch):
    """6: as many as its shift has rows."""
    ours, spec = steps(OF_SHAPES[name]().double(), penalty)
    for _ in range(2):
        assert_same_update(ours, spec, *samples(IMAGE, batch))
    assert is_by_program(ours) or penalty is None, ours.plan


class Rows(nn.Module):
    """With as many rows of its own as there are samples, and as many features."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, BATCH), nn.Linear(BATCH, 1)
        self.rows, self.features = nn.Parameter(torch.randn(BATCH, BATCH)), nn.Parameter(torch.randn(BATCH))

    def forward(self, x, y):
        x = torch.tanh(self.first(x) + self.rows) * self.features
        return self.last(torch.tanh(x + y))  # a row or a feature each


def test_rows_and_features_are_told_apart():
    for y in (torch.randn(BATCH), torch.randn(BATCH, 1), torch.randn(BATCH, BATCH)):
        ours, spec = steps(Rows().double())
        assert_same_update(ours, spec, *samples(VECTOR), y.double())
        assert is_by_program(ours), ours.plan


def test_rows_for_another_number_of_samples():
    ours, _ = steps(Rows().double())
    with pytest.raises(RuntimeError, match="must match"):
        ours(*samples(VECTOR, 2), torch.randn(2, 1).double())


class TwoConditions(nn.Module):
    """Of labels, what depends on those of other samples, too."""

    def __init__(self, among=None):
        super().__init__()
        self.emb, self.last = nn.Embedding(CLASSES, 4), nn.Linear(7, 1)
        self.among = among or (lambda e: e - torch.mean(e, 0, keepdim=True))

    def forward(self, x, y, z):
        return self.last(torch.tanh(torch.cat([x * self.among(self.emb(y)), z], 1)))


def test_two_conditions():
    ours, spec = steps(TwoConditions().double())
    real, fake = samples(VECTOR)
    assert_same_update(ours, spec, real, fake, labels(), torch.randn(BATCH, 3).double())
    assert is_by_program(ours), ours.plan


class Dropping(nn.Module):
    """Masks of samples, before and behind labels of which nothing is drawn."""

    def __init__(self):
        super().__init__()
        self.emb, self.first, self.last, self.drop = (
            nn.Embedding(CLASSES, 4),
            nn.Linear(4, 4),
            nn.Linear(8, 1),
            nn.Dropout(0.4),
        )

    def forward(self, x, y):
        y = self.emb(y)
        return self.last(self.drop(torch.tanh(torch.cat([self.drop(self.first(x)) * y, y], 1))))


@pytest.mark.parametrize("tune", [False, True])
def test_dropout_beside_labels(tune):
    ours, spec = steps(Dropping().double(), tune=tune)
    for batch in (BATCH, BATCH, 1):
        assert_same_update(ours, spec, *samples(VECTOR, batch), torch.randint(0, CLASSES, (batch,)))
    assert is_by_program(ours), ours.plan


DRAWING = {"dropout": F.dropout, "a layer": nn.Dropout(), "batch norm": nn.BatchNorm1d(4), "noise": torch.rand_like}


@pytest.mark.parametrize("among", DRAWING.values(), ids=DRAWING)
def test_what_comes_to_something_else_at_each_call_is_called(among):
    """Each call draws, and statistics follow it."""
    ours, spec = steps(TwoConditions(among).double())
    real, fake = samples(VECTOR)
    for _ in range(2):
        assert_same_update(ours, spec, real, fake, labels(), torch.randn(BATCH, 3).double())
    assert not is_by_program(ours)
    for mine, other in zip(ours.critic.buffers(), spec.critic.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("kind", [OneHot, Embedded])
def test_perceptrons(kind):
    ours, spec = steps(kind(ACTS["leaky"]))
    assert isinstance(wk.one_pass.trace_step(ours.critic, 1).program.perceptron, Perceptron)
    with Counting() as seen:
        assert_same_update(ours, spec, *samples(VECTOR, dtype=torch.float32), labels(), rtol=1e-4, atol=1e-5)
    assert seen.seen == ["begin", "finish"]


@pytest.mark.parametrize("kind", CRITICS.values(), ids=CRITICS)
def test_every_way_that_is_tried(kind):
    ours, spec = steps(kind(ACTS["tanh"]).double(), tune=True)
    real, fake = samples(shape_of(spec.critic))
    for _ in range(2):
        assert_same_update(ours, spec, real, fake, labels())
    assert "fastest by" in ours.plan


def test_bfloat16():
    critic = Planes(ACTS["leaky"])
    ours, exact = steps(critic, precision="bfloat16")
    (_, plain), (real, fake), y = steps(critic), samples(shape_of(critic), dtype=torch.float32), labels()
    with torch.autocast("cpu", torch.bfloat16):
        theirs = plain(real, fake, y)
    found, true = ours(real, fake, y), exact(real, fake, y)
    assert is_by_program(ours)
    for name, value in found.items():
        assert (value - true[name]).abs() <= 2 * (theirs[name] - true[name]).abs() + 0.02


def test_a_critic_that_was_without_is_traced_anew():
    class Sometimes(nn.Sequential):
        def forward(self, x, y=None):
            return super().forward(x if y is None else x * y)

    ours, spec = steps(Sometimes(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double())
    for condition in ((), (torch.randn(BATCH, 1).double(),), ()):
        assert_same_update(ours, spec, *samples(VECTOR), *condition)
        assert is_by_program(ours), ours.plan


def test_a_plan_before_the_first_call_says_what_is_missing():
    ours, _ = steps(OneHot(ACTS["leaky"]).double())
    assert "cannot be traced" in ours.plan
    ours(*samples(VECTOR), labels())
    assert "cat" in ours.plan and "pushforward" in ours.plan


def test_nobody_asks_for_a_conditions_gradient():
    ours, spec = steps(Rows().double())
    y = torch.randn(BATCH, 1, dtype=torch.float64, requires_grad=True)
    assert_same_update(ours, spec, *samples(VECTOR), y)
    assert y.grad is None


def test_another_callable_than_a_module():
    critic = OneHot(ACTS["leaky"]).double()
    twin, (real, fake), y = copy.deepcopy(critic), samples(VECTOR), labels()
    for of, net in ((wk, critic), (wk.reference, twin)):
        torch.manual_seed(1)
        step = of.CriticStep(lambda x, y, net=net: net(x, y), torch.optim.SGD(net.parameters(), 0.1))
        step(real, fake, y)
    for mine, other in zip(critic.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        (lambda: [1] * BATCH, TypeError, "condition 0: expected a tensor, got list"),
        (lambda: labels()[:-1], ValueError, f"condition 0: expected a row for each of {BATCH} samples"),
        (lambda: torch.tensor(1), ValueError, "condition 0: expected a row"),
        (lambda: torch.zeros(BATCH, device="meta"), RuntimeError, "condition 0 is on meta"),
    ],
    ids=["no tensor", "another number", "none", "another device"],
)
def test_wrong_conditions_are_refused(condition, error, message):
    ours, _ = steps(OneHot(ACTS["leaky"]).double())
    before = copy.deepcopy(ours.critic.state_dict())
    with pytest.raises(error, match=message):
        ours(*samples(VECTOR), condition())
    torch.testing.assert_close(ours.critic.state_dict(), before)
    step = wk.GeneratorStep(Generator().double(), ours.critic, torch.optim.SGD(ours.critic.parameters(), 0.1))
    with pytest.raises(error, match=message):
        step(torch.randn(BATCH, 3).double(), condition())
    with pytest.raises(error, match=message):
        step.sample(torch.randn(BATCH, 3).double(), condition())


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.filter_too_much])
@given(
    critics(), st.sampled_from(["cat", "behind", "shift", "scale"]), st.sampled_from(PENALTIES[:3]), st.integers(0, 99)
)
def test_any_critic(drawn, how, penalty, number):
    critic, x = drawn
    torch.manual_seed(number)
    part = x.shape[1] // 2 if how in ("cat", "behind") else x.shape[1]
    hypothesis.assume(part and (part < x.shape[1] or how in ("shift", "scale")))
    conditional = Conditional(critic, how, x[:1, :part].shape)
    real = x[:, part:] if how in ("cat", "behind") else x
    fake, y = real.flip(0) * 0.7 + 0.3, torch.randint(0, 3, (len(x),))
    ours, spec = steps(conditional, penalty)
    with sdpa_kernel(SDPBackend.MATH):
        hypothesis.assume(not is_decided_by_rounding(conditional, real, fake, (y,), penalty))
        assert_same_update(ours, spec, real, fake, y, rtol=1e-6, atol=1e-8)
    hypothesis.event("program" if is_by_program(ours) else "autograd")


class Conditional(nn.Module):
    def __init__(self, critic, how, shape):
        super().__init__()
        self.critic, self.how, self.shape = critic, how, shape[1:]
        self.emb = nn.Embedding(3, shape.numel()).double()

    def forward(self, x, y):
        e = self.emb(y).view(-1, *self.shape)
        if self.how in ("cat", "behind"):
            return self.critic(torch.cat([e, x] if self.how == "cat" else [x, e], 1))
        return self.critic(x + e if self.how == "shift" else e * x)


# --- generators -----------------------------------------------------------------------------------------------------
class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(CLASSES, 2)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, z, y):
        return self.body(torch.cat([z, self.emb(y)], 1))


@pytest.mark.parametrize("tune", [True, False])
def test_a_conditional_generator(tune):
    found = []
    for of in (wk, wk.reference):
        torch.manual_seed(1)
        generator, critic = Generator().double(), Embedded(ACTS["tanh"]).double()
        step = of.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), 0.1), tune=tune)
        z, y = torch.randn(BATCH, 3).double(), labels()
        losses = [step(z, y)["loss"] for _ in range(2)]
        found.append([*losses, step.sample(z, y), *generator.parameters(), *generator.buffers()])
        assert all(param.grad is None for param in critic.parameters())
    torch.testing.assert_close(*found)
