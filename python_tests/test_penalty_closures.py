"""Critics that are functions, as for their labels: one node where they provably do nothing but put layers together."""

import functools
import gc
import sys
import weakref

import pytest
import torch
from critics import is_one_node
from labelled import (
    ACTS,
    BATCH,
    CLASSES,
    IMAGE,
    VECTOR,
    Embedded,
    OneHot,
    Planes,
    Projection,
    assert_as_by_calls,
    labels,
    samples,
)
from torch import nn

import wgan_kernels as wk
from wgan_kernels.one_pass.closure import closure_of
from wgan_kernels.one_pass.program import Refused
from wgan_kernels.one_pass.trace import trace_closure


def test_new_labels_at_each_call_are_no_new_critic(monkeypatch):
    critic, traced = Projection(ACTS["leaky"]).double(), traces(monkeypatch, "trace_closure")
    for _ in range(4):
        y = labels()
        assert is_one_node(assert_as_by_calls(lambda x, y=y: critic(x, y), list(critic.parameters()), VECTOR))
    assert len(traced) == 1
    critic.features[1] = nn.ReLU()
    assert is_one_node(assert_as_by_calls(lambda x, y=y: critic(x, y), list(critic.parameters()), VECTOR))
    assert len(traced) == 2


def traces(monkeypatch, name):
    """How often a function of trace.py is called from here on."""
    where, made = sys.modules["wgan_kernels.one_pass.known"], []
    function = getattr(where, name)
    monkeypatch.setattr(where, name, lambda critic: made.append(critic) or function(critic))
    return made


def test_a_number_that_changes_at_each_call_is_not_traced_for_ever(monkeypatch):
    critic, y, traced, found = Embedded(ACTS["leaky"]).double(), labels(), traces(monkeypatch, "trace_closure"), []
    params = list(critic.parameters())
    for step in range(20):
        fade = min(1.0, step / 14)
        found.append(is_one_node(assert_as_by_calls(lambda x, fade=fade: critic(x, y) * fade, params, VECTOR)))
    assert found[0] and not found[12] and found[-1]
    assert len(traced) < 12


def test_an_attribute_that_changes_at_each_call_is_not_traced_for_ever(monkeypatch):
    critic, traced, found = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1)).double(), [], []
    traced, params = traces(monkeypatch, "trace"), list(critic.parameters())
    for step in range(20):
        critic[1].negative_slope = min(0.14, 0.01 * (step + 1))
        found.append(is_one_node(assert_as_by_calls(critic, params, VECTOR)))
    assert found[0] and found[-1]
    critic[1].negative_slope = 0.5
    assert is_one_node(assert_as_by_calls(critic, params, VECTOR))
    for step in range(20):
        critic[1].negative_slope = 0.5 + 0.01 * step
        assert_as_by_calls(critic, params, VECTOR)
    assert len(traced) < 22


def test_one_function_for_two_critics():
    made = [kind(ACTS["leaky"]).double() for kind in (OneHot, Embedded, OneHot)]
    y = labels()

    def penalised(critic):
        return assert_as_by_calls(lambda x: critic(x, y), list(critic.parameters()), VECTOR)

    assert all(is_one_node(penalised(critic)) for critic in made * 2)


SCALE = 3.0
GLOBAL = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
OFFSET = torch.randn(BATCH, 4).double()


def test_of_a_module():
    global SCALE
    params = list(GLOBAL.parameters())
    function = lambda x: GLOBAL(x + OFFSET) * SCALE  # noqa: E731
    assert is_one_node(assert_as_by_calls(function, params, VECTOR))
    SCALE = 5.0
    assert is_one_node(assert_as_by_calls(function, params, VECTOR))
    SCALE = 3.0


def test_two_modules():
    emb, body = nn.Embedding(CLASSES, 2).double(), nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)).double()
    y, params = labels(), [*emb.parameters(), *body.parameters()]
    assert is_one_node(assert_as_by_calls(lambda x: body(torch.cat([x, emb(y)], 1)), params, VECTOR))


class Trainer:
    """As most are."""

    def __init__(self, critic):
        self.critic, self.scale, self.batches = critic, 2.0, []

    def penalty(self, y):
        self.batches.append(y)
        return lambda x: self.critic(x, y) * self.scale


class Both(nn.Module, Trainer):
    """Of which the penalty wants one part."""

    def __init__(self, critic):
        nn.Module.__init__(self)
        self.generator, self.step = nn.Linear(2, 2), 0
        Trainer.__init__(self, critic)


@pytest.mark.parametrize("kind", [Trainer, Both])
def test_of_a_trainer(kind):
    trainer = kind(Embedded(ACTS["leaky"]).double())
    for scale in (2.0, 0.5):
        trainer.scale = scale
        params = list(trainer.critic.parameters())
        assert is_one_node(assert_as_by_calls(trainer.penalty(labels()), params, VECTOR))
        trainer.critic = OneHot(ACTS["tanh"]).double()


class Counting(Trainer):
    calls = 0

    @property
    def scale(self):
        self.calls += 1
        return 3.0

    @scale.setter
    def scale(self, value):
        pass


def test_a_property_of_a_trainer_is_called():
    trainer = Counting(Embedded(ACTS["leaky"]).double())
    assert not is_one_node(assert_as_by_calls(trainer.penalty(labels()), list(trainer.critic.parameters()), VECTOR))
    assert trainer.calls == 2


def with_hook():
    critic = Embedded(ACTS["leaky"]).double()
    critic.emb.register_forward_hook(lambda *_: None)
    return critic


def noisy(critic, y):
    return lambda x: critic(x + 0 * torch.randn_like(x), y)


def listed(critic, y):
    both = [critic, y]
    return lambda x: both[0](x, both[1])


def noted(critic, y):
    critic.seen = []
    return lambda x: critic.seen.append(1) or critic(x, y)


def behind_each_other(critic, y):
    return lambda x: critic(torch.cat([x, x.detach()], 0)[: len(x)], y)


def of_learnt(critic, y):
    weight = nn.Parameter(torch.ones(4).double())
    return lambda x: critic(x * weight, y)


def of_a_tensor_with_a_gradient(critic, y):
    weight = torch.ones(4).double().requires_grad_()
    return lambda x: critic(x * weight, y)


def without_a_variable(critic, y):
    def function(x):
        return critic(x, y) if later is None else critic(x, later)

    later = y
    return function


def listing(critic, y):
    trainer = Trainer(critic)
    trainer.batches = [y]
    return trainer


def converted(critic, y):
    return lambda x: critic.double()(x, y)


BY_CALLS = {
    "noise": noisy,
    "a list": listed,
    "a note": noted,
    "samples behind each other": behind_each_other,
    "a parameter": of_learnt,
    "a tensor with a gradient": of_a_tensor_with_a_gradient,
    "a conversion": converted,
    "a trainer's list": lambda critic, y: (lambda self: lambda x: self.critic(x, self.batches[0]))(listing(critic, y)),
    "a trainer's method": lambda critic, y: (lambda self: lambda x: self.penalty(y)(x))(Trainer(critic)),
    "a trainer itself": lambda critic, y: (lambda self: lambda x: self.critic(x, y) if self else x)(Trainer(critic)),
    "a lambda of another": lambda critic, y: (lambda f: lambda x: f(x))(lambda x: critic(x, y)),
    "positions": lambda critic, y: functools.partial(lambda y, x: critic(x, y), y),
}


@pytest.mark.parametrize("name", BY_CALLS)
def test_others_are_called(name):
    critic = Embedded(ACTS["leaky"]).double()
    penalty = assert_as_by_calls(BY_CALLS[name](critic, labels()), list(critic.parameters()), VECTOR)
    assert not is_one_node(penalty)


def test_a_condition_on_a_variable():
    critic, y = Embedded(ACTS["leaky"]).double(), labels()
    assert_as_by_calls(without_a_variable(critic, y), list(critic.parameters()), VECTOR)


def test_hooks_are_called():
    critic, y = with_hook(), labels()
    assert not is_one_node(assert_as_by_calls(lambda x: critic(x, y), list(critic.parameters()), VECTOR))


class Reckoning(nn.Module):
    """With a number of its samples' shape."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1))

    def forward(self, x):
        return self.body(x) * x.size(1) + x.shape[0]


def test_numbers_of_a_shape():
    critic = Reckoning().double()
    params = list(critic.parameters())
    assert not is_one_node(assert_as_by_calls(critic, params, VECTOR))
    assert not is_one_node(assert_as_by_calls(lambda x: critic(x), params, VECTOR))
    step = wk.CriticStep(critic, torch.optim.SGD(params, 0.1), tune=False)
    assert step(*samples(VECTOR))["loss"].isfinite() and "numbers of its samples' shape" in step.plan


class Converting(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)

    def forward(self, x, y):
        return self.to(torch.float64).body(x)


def test_what_changes_a_module_is_not_tried():
    critic, y = Converting(), labels()
    weight = critic.body.weight
    with pytest.raises(RuntimeError):  # of samples in float32
        wk.gradient_penalty(lambda x: critic(x, y), *samples(VECTOR, torch.float32))
    assert weight.dtype is torch.float64  # by the call itself, as ever
    critic = Converting()
    before = critic.body.weight.clone()
    with pytest.raises(Refused, match="converts"):
        trace_closure(closure_of(lambda x: critic(x, y)))
    assert critic.body.weight.dtype is torch.float32 and torch.equal(critic.body.weight, before)


def test_a_critic_that_is_gone_is_forgotten():
    def penalised():
        critic, y = Planes(ACTS["leaky"]).double(), labels()
        assert is_one_node(assert_as_by_calls(lambda x: critic(x, y), list(critic.parameters()), IMAGE))
        return weakref.ref(critic), weakref.ref(critic.body[0].weight)

    gone, of_weight = penalised()
    gc.collect()
    assert gone() is None and of_weight() is None
