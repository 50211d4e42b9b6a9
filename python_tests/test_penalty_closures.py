"""Critics that are functions, as for their labels: one node where they provably do nothing but put layers together."""

import copy
import functools
import gc
import sys
import weakref

import pytest
import torch
from critics import critics, is_on_a_kink
from hypothesis import assume, event, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import wgan_kernels as wk
from wgan_kernels.one_pass.closure import closure_of
from wgan_kernels.one_pass.program import Refused
from wgan_kernels.one_pass.trace import trace_closure

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


def is_one_node(penalty):
    return type(penalty.grad_fn).__name__ == "PenaltyBackward"


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


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("kind", CRITICS.values(), ids=CRITICS)
def test_labels(kind, act):
    critic, y = kind(act).double(), labels()
    for function in (lambda x: critic(x, y), functools.partial(critic, y=y), lambda x, y=y, of=critic: of(x, y)):
        assert is_one_node(assert_as_by_calls(function, list(critic.parameters()), shape_of(critic)))


@pytest.mark.parametrize("kind", CRITICS.values(), ids=CRITICS)
def test_frozen_parts(kind):
    critic = kind(ACTS["leaky"]).double()
    for name, param in critic.named_parameters():
        param.requires_grad_("emb" not in name and "bias" not in name)
    y, params = labels(), [param for param in critic.parameters() if param.requires_grad]
    assert is_one_node(assert_as_by_calls(lambda x: critic(x, y), params, shape_of(critic)))


@pytest.mark.parametrize("kind", CRITICS.values(), ids=CRITICS)
def test_in_float32_and_by_autocast(kind):
    critic, y = kind(ACTS["leaky"]), labels()
    params = list(critic.parameters())
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert is_one_node(assert_as_by_calls(lambda x: critic(x, y), params, shape_of(critic), torch.float32, **close))
    with torch.autocast("cpu", torch.bfloat16):
        assert_as_by_calls(lambda x: critic(x, y), params, shape_of(critic), torch.float32, rtol=0.1, atol=0.05)


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


@given(critics(), st.sampled_from(["cat", "behind", "shift", "scale"]), st.integers(0, 99))
def test_any_critic_with_labels(drawn, how, number):
    """Which parameters receive zeros, and which nothing, embeddings too."""
    critic, x = drawn
    torch.manual_seed(number)
    labelled = x[:, : x.shape[1] // 2] if how in ("cat", "behind") else x
    assume(labelled.numel())
    emb, y, shape = nn.Embedding(3, labelled[0].numel()).double(), torch.randint(0, 3, (len(x),)), tuple(labelled.shape)
    x = x[:, x.shape[1] // 2 :] if how in ("cat", "behind") else x
    function = {
        "cat": lambda x: critic(torch.cat([emb(y).view(shape), x], 1)),
        "behind": lambda x: critic(torch.cat((x, emb(y).view(shape)), dim=1)),
        "shift": lambda x: critic(x + emb(y).view(shape)),
        "scale": lambda x: critic(emb(y).view(shape) * x),
    }[how]
    params, found = [*emb.parameters(), *(p for p in critic.parameters() if p.requires_grad)], []
    before = copy.deepcopy(critic.state_dict())
    with sdpa_kernel(SDPBackend.MATH):
        whole = {"cat": [emb(y).view(shape), x], "behind": [x, emb(y).view(shape)]}.get(how)
        whole = torch.cat(whole, 1) if whole else x + emb(y).view(shape) if how == "shift" else x * emb(y).view(shape)
        assume(not is_on_a_kink(copy.deepcopy(critic), whole.detach()))
        norms = wk.reference.penalty.input_gradient(function, x).flatten(1).norm(dim=1)
        assume(not ((norms > 0) & (norms < 1e-9)).any())
        for of in (wk, wk.reference):
            critic.load_state_dict(before)
            value = of.r1_penalty(function, x)
            if of is wk:
                event("one node" if "DivBackward" in str(value.grad_fn) and "Penalty" in parents(value) else "by calls")
            grads = (
                torch.autograd.grad(value, params, allow_unused=True) if value.requires_grad else [None] * len(params)
            )
            found.append((value.detach(), grads))
    (value, ours), (expected, theirs) = found
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-10)
    assert [grad is None for grad in ours] == [grad is None for grad in theirs]
    scale = max([1.0, *(grad.abs().max().item() for grad in theirs if grad is not None and grad.numel())])
    for mine, other in zip(ours, theirs, strict=True):
        if other is not None:
            torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9 * scale)


def parents(value):
    return " ".join(type(node).__name__ for node, _ in value.grad_fn.next_functions)


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


@pytest.mark.parametrize("how", [{"max_norm": 0.5}, {"sparse": True}])
def test_embeddings_that_do_more(how):
    critic, y = Embedded(ACTS["leaky"]).double(), labels()
    critic.emb = nn.Embedding(CLASSES, 3, **how).double()
    real, fake = samples(VECTOR)
    assert not is_one_node(wk.gradient_penalty(lambda x: critic(x, y), real, fake))


class Reckoning(nn.Module):
    """With a number of its samples' shape."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 1))

    def forward(self, x):
        return self.body(x) * x.size(1) + x.shape[0]


CATS = {
    "names turned": lambda body, e: lambda x: body(torch.cat(dim=1, tensors=[x, e])),
    "names": lambda body, e: lambda x: body(torch.cat(tensors=(x, e), dim=1)),
    "its other name": lambda body, e: lambda x: body(torch.concat([x, e], -1)),
    "numpy's": lambda body, e: lambda x: body(torch.cat([x, e], axis=1)),
}


@pytest.mark.parametrize("name", CATS)
def test_every_way_to_put_labels_behind_samples(name):
    body, e = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1)).double(), torch.randn(BATCH, 3).double()
    penalty = assert_as_by_calls(CATS[name](body, e), list(body.parameters()), VECTOR)
    assert is_one_node(penalty) is (name != "numpy's")


def test_numbers_of_a_shape():
    critic = Reckoning().double()
    params = list(critic.parameters())
    assert not is_one_node(assert_as_by_calls(critic, params, VECTOR))
    assert not is_one_node(assert_as_by_calls(lambda x: critic(x), params, VECTOR))
    step = wk.CriticStep(critic, torch.optim.SGD(params, 0.1), tune=False)
    assert step(*samples(VECTOR))["loss"].isfinite() and "numbers of its samples" in step.plan


def test_labels_of_a_wider_type_are_refused_as_by_calls():
    critic, y = OneHot(ACTS["leaky"]), F.one_hot(labels(), CLASSES).double()
    with pytest.raises(RuntimeError, match="dtype"):
        wk.gradient_penalty(lambda x: critic.body(torch.cat([y, x], 1)), *samples(VECTOR, torch.float32))


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


def test_a_graph_that_is_kept_has_the_labels_it_was_made_with():
    critic, y = Embedded(ACTS["tanh"]).double(), labels()
    real, fake = samples(VECTOR)
    eps, params = torch.rand(BATCH).double(), list(critic.parameters())
    function = lambda x: critic(x, y)  # noqa: E731
    _, expected = results(wk.reference, function, params, real, fake, eps)
    penalty = wk.gradient_penalty(function, real, fake, eps=eps)
    for _ in range(2):
        found = torch.autograd.grad(penalty, params, retain_graph=True, allow_unused=True)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
        y = labels()
    with pytest.raises(RuntimeError, match="labels"):
        torch.autograd.grad(penalty, params, create_graph=True, allow_unused=True)


def test_derivatives_beyond_the_second():
    critic, y = Embedded(ACTS["tanh"]).double(), labels()
    real, fake = samples(VECTOR)
    eps, params, found = torch.rand(BATCH).double(), list(critic.parameters()), []
    for of in (wk, wk.reference):
        penalty = of.gradient_penalty(lambda x: critic(x, y), real, fake, eps=eps)
        grads = torch.autograd.grad(penalty, params, create_graph=True, allow_unused=True)
        total = sum(grad.square().sum() for grad in grads if grad is not None)
        found.append(torch.autograd.grad(total, params, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_labels_changed_in_place_are_not_called_again():
    critic, y = Embedded(ACTS["tanh"]).double(), labels()
    penalty = wk.gradient_penalty(lambda x: critic(x, y), *samples(VECTOR))
    y.add_(1).remainder_(CLASSES)
    with pytest.raises(RuntimeError, match="labels"):
        torch.autograd.grad(penalty, list(critic.parameters()), create_graph=True, allow_unused=True)


def test_under_no_grad():
    critic, y = Planes(ACTS["leaky"]).double(), labels()
    real, fake = samples(IMAGE)
    eps = torch.rand(BATCH).double()
    with torch.no_grad():
        penalty = wk.gradient_penalty(lambda x: critic(x, y), real, fake, eps=eps)
    torch.testing.assert_close(penalty, wk.reference.gradient_penalty(lambda x: critic(x, y), real, fake, eps=eps))
    assert not penalty.requires_grad


def test_labels_of_another_number_are_refused_as_by_calls():
    critic, y = Embedded(ACTS["leaky"]).double(), labels()[:4]
    with pytest.raises(RuntimeError, match="izes of tensors must match"):
        wk.gradient_penalty(lambda x: critic(x, y), *samples(VECTOR))


def test_a_critic_that_is_gone_is_forgotten():
    def penalised():
        critic, y = Planes(ACTS["leaky"]).double(), labels()
        assert is_one_node(assert_as_by_calls(lambda x: critic(x, y), list(critic.parameters()), IMAGE))
        return weakref.ref(critic), weakref.ref(critic.body[0].weight)

    gone, of_weight = penalised()
    gc.collect()
    assert gone() is None and of_weight() is None
