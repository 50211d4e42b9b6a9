"""Penalties of critics with labels, which are given from outside of the samples' program."""

import copy
import functools

import pytest
import torch
from critics import critics, is_on_a_kink, is_one_node
from hypothesis import assume, event, given
from hypothesis import strategies as st
from labelled import (
    ACTS,
    BATCH,
    CLASSES,
    CRITICS,
    IMAGE,
    VECTOR,
    Embedded,
    OneHot,
    Planes,
    assert_as_by_calls,
    labels,
    results,
    samples,
    shape_of,
)
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import wgan_kernels as wk


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
                event("one node" if value.requires_grad and is_one_node(value) else "by calls")
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


@pytest.mark.parametrize("how", [{"max_norm": 0.5}, {"sparse": True}])
def test_embeddings_that_do_more(how):
    critic, y = Embedded(ACTS["leaky"]).double(), labels()
    critic.emb = nn.Embedding(CLASSES, 3, **how).double()
    real, fake = samples(VECTOR)
    assert not is_one_node(wk.gradient_penalty(lambda x: critic(x, y), real, fake))


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


def test_labels_of_a_wider_type_are_refused_as_by_calls():
    critic, y = OneHot(ACTS["leaky"]), F.one_hot(labels(), CLASSES).double()
    with pytest.raises(RuntimeError, match="dtype"):
        wk.gradient_penalty(lambda x: critic.body(torch.cat([y, x], 1)), *samples(VECTOR, torch.float32))


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
