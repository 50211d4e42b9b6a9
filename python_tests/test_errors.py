"""Bad calls: each raises the documented error, names the argument, and writes nothing."""

import math

import pytest
import torch
from torch import nn

import wgan_kernels as wk

X = torch.randn(4, 3)
S = torch.randn(4, 1)
NAN = math.nan


def critic(x):
    return x.square().sum(1, keepdim=True)


def sparse():
    return torch.eye(3).to_sparse()


BAD = {
    # clip_
    "clip no bound": (lambda: wk.clip_([X]), TypeError, "bound"),
    "clip negative bound": (lambda: wk.clip_([X], -0.1), ValueError, "bound is -0.1"),
    "clip nan bound": (lambda: wk.clip_([X], NAN), ValueError, "bound is NaN"),
    "clip text bound": (lambda: wk.clip_([X], "0.1"), TypeError, "bound.*str"),
    "clip bool bound": (lambda: wk.clip_([X], True), TypeError, "bound.*bool"),
    "clip tensor bound": (lambda: wk.clip_([X], torch.tensor(0.1)), TypeError, r"bound.*item\(\)"),
    "clip low above high": (lambda: wk.clip_([X], 1.0, -1.0), ValueError, "low is 1.0, high -1.0"),
    "clip nan low": (lambda: wk.clip_([X], NAN, 1.0), ValueError, "low is NaN"),
    "clip nan high": (lambda: wk.clip_([X], 0.0, NAN), ValueError, "high is NaN"),
    "clip low alone": (lambda: wk.clip_([X], low=0.0), TypeError, "high"),
    "clip high alone": (lambda: wk.clip_([X], high=1.0), TypeError, "low: missing beside the other end; pass both"),
    "clip ends and low": (lambda: wk.clip_([X], -1.0, 1.0, low=0.5), TypeError, "a bound, or low and high, each once"),
    "clip ends and high": (lambda: wk.clip_([X], -1.0, 1.0, high=0.5), TypeError, "or low and high, each once"),
    "clip three ends": (lambda: wk.clip_([X], -1.0, 1.0, 2.0), TypeError, "or low and high, each once"),
    "clip first and low": (lambda: wk.clip_([X], 0.5, low=-1.0), TypeError, "or low and high, each once"),
    "clip two bounds": (lambda: wk.clip_([X], 0.5, bound=1.0), TypeError, "or low and high, each once"),
    "clip bound and high": (lambda: wk.clip_([X], bound=0.5, high=1.0), TypeError, "bound: expected alone"),
    "clip bound and low": (lambda: wk.clip_([X], bound=0.5, low=-1.0), TypeError, "bound: expected alone"),
    "clip bound too large": (lambda: wk.clip_([X], 10**400), ValueError, "bound is beyond a float's range.*math.inf"),
    "clip low too small": (lambda: wk.clip_([X], -(10**400), 1.0), ValueError, "low is beyond a float's range"),
    "clip number": (lambda: wk.clip_(3.0, 1.0), TypeError, "params.*float"),
    "clip none": (lambda: wk.clip_(None, 1.0), TypeError, "params.*NoneType"),
    "clip integers": (lambda: wk.clip_([torch.ones(3, dtype=torch.int64)], 1.0), TypeError, r"params\[0\].*int64"),
    "clip complex": (
        lambda: wk.clip_([torch.ones(3, dtype=torch.complex64)], 1.0),
        TypeError,
        r"params\[0\].*complex64",
    ),
    "clip list of numbers": (lambda: wk.clip_([1.0, 2.0], 1.0), TypeError, r"params\[0\].*float"),
    "clip second is none": (lambda: wk.clip_([X.clone(), None], 1.0), TypeError, r"params\[1\].*NoneType"),
    "clip sparse": (lambda: wk.clip_([sparse()], 1.0), TypeError, r"params\[0\].*layout"),
    "clip expanded": (lambda: wk.clip_([torch.ones(1).expand(3)], 0.5), RuntimeError, r"params\[0\].*share memory"),
    "clip expanded leaf": (
        lambda: wk.clip_([torch.ones(1).expand(3).requires_grad_()], 0.5),
        RuntimeError,
        r"params\[0\].*share memory",
    ),
    # interpolate
    "interpolate list": (lambda: wk.interpolate([1.0], X), TypeError, "real.*list"),
    "interpolate fake number": (lambda: wk.interpolate(X, 1.0), TypeError, "fake.*float"),
    "interpolate integers": (lambda: wk.interpolate(X.long(), X), TypeError, "real.*int64"),
    "interpolate complex": (lambda: wk.interpolate(X, X.to(torch.complex64)), TypeError, "fake.*complex64"),
    "interpolate shapes": (lambda: wk.interpolate(X, X[:, :2]), ValueError, r"real has shape \(4, 3\), fake \(4, 2\)"),
    "interpolate batches": (lambda: wk.interpolate(X, X[:3]), ValueError, r"fake \(3, 3\)"),
    "interpolate 0-d": (lambda: wk.interpolate(torch.ones(()), torch.ones(())), ValueError, "real.*batch"),
    "interpolate eps length": (lambda: wk.interpolate(X, X, torch.rand(3)), ValueError, r"eps.*\[4\].*\(3,\)"),
    "interpolate eps matrix": (lambda: wk.interpolate(X, X, torch.rand(4, 3)), ValueError, r"eps.*\(4, 3\)"),
    "interpolate eps scalar": (lambda: wk.interpolate(X, X, torch.rand(())), ValueError, r"eps.*\(\)"),
    "interpolate eps number": (lambda: wk.interpolate(X, X, 0.5), TypeError, "eps.*float"),
    "interpolate eps integers": (
        lambda: wk.interpolate(X, X, torch.ones(4, dtype=torch.int32)),
        TypeError,
        "eps.*int32",
    ),
    "interpolate devices": (lambda: wk.interpolate(X, X.to("meta")), RuntimeError, "fake is on meta, real on cpu"),
    "interpolate eps device": (
        lambda: wk.interpolate(X, X, torch.rand(4, device="meta")),
        RuntimeError,
        "eps is on meta",
    ),
    "interpolate seed": (lambda: wk.interpolate(X, X, generator=1), TypeError, "generator.*int"),
    "interpolate eps and generator": (
        lambda: wk.interpolate(X, X, torch.rand(4), generator=torch.Generator()),
        ValueError,
        "generator.*eps is given",
    ),
    # gradient_norm_penalty
    "norm list": (lambda: wk.gradient_norm_penalty([1.0]), TypeError, "grad.*list"),
    "norm tuple of autograd.grad": (lambda: wk.gradient_norm_penalty((X,)), TypeError, "grad.*tuple"),
    "norm integers": (lambda: wk.gradient_norm_penalty(X.int()), TypeError, "grad.*int32"),
    "norm 0-d": (lambda: wk.gradient_norm_penalty(torch.ones(())), ValueError, "grad.*batch"),
    "norm negative target": (lambda: wk.gradient_norm_penalty(X, target=-1.0), ValueError, "target is -1.0"),
    "norm nan target": (lambda: wk.gradient_norm_penalty(X, target=NAN), ValueError, "target is NaN"),
    "norm text target": (lambda: wk.gradient_norm_penalty(X, target="1"), TypeError, "target.*str"),
    "norm one_sided": (lambda: wk.gradient_norm_penalty(X, one_sided="yes"), TypeError, "one_sided.*'yes'"),
    "norm reduction": (lambda: wk.gradient_norm_penalty(X, reduction="max"), ValueError, "reduction is 'max'.*'mean'"),
    # losses
    "loss list": (lambda: wk.critic_loss([1.0], S), TypeError, "real_scores.*list"),
    "loss integers": (lambda: wk.critic_loss(S, S.long()), TypeError, "fake_scores.*int64"),
    "loss device": (lambda: wk.critic_loss(S, S.to("meta")), RuntimeError, "fake_scores is on meta"),
    "loss penalty number": (lambda: wk.critic_loss(S, S, 0.1), TypeError, "penalty.*float"),
    "loss penalty vector": (lambda: wk.critic_loss(S, S, torch.ones(4)), ValueError, r"penalty.*\(4,\)"),
    "loss weight": (lambda: wk.critic_loss(S, S, torch.ones(()), weight=None), TypeError, "weight.*NoneType"),
    "loss nan weight": (lambda: wk.critic_loss(S, S, torch.ones(()), weight=NAN), ValueError, "weight is NaN"),
    "generator loss number": (lambda: wk.generator_loss(1.0), TypeError, "fake_scores.*float"),
    # penalties
    "penalty critic": (lambda: wk.gradient_penalty("critic", X, X), TypeError, "critic.*str"),
    "penalty critic returns tuple": (lambda: wk.gradient_penalty(lambda x: (x,), X, X), TypeError, "critic.*tuple"),
    "penalty critic ignores input": (
        lambda: wk.gradient_penalty(lambda x: torch.ones(4, requires_grad=True), X, X),
        RuntimeError,
        "critic.*depend",
    ),
    "penalty critic detaches": (
        lambda: wk.gradient_penalty(lambda x: x.detach(), X, X),
        RuntimeError,
        "critic.*depend",
    ),
    "penalty shapes": (lambda: wk.gradient_penalty(critic, X, X[:2]), ValueError, r"fake \(2, 3\)"),
    "penalty integers": (lambda: wk.gradient_penalty(critic, X.long(), X), TypeError, "real.*int64"),
    "penalty target": (lambda: wk.gradient_penalty(critic, X, X, target=-1), ValueError, "target"),
    "penalty eps": (lambda: wk.gradient_penalty(critic, X, X, eps=torch.rand(5)), ValueError, "eps"),
    "penalty inference mode": (
        lambda: in_inference_mode(wk.gradient_penalty, X),
        RuntimeError,
        "inference mode is on.*leave",
    ),
    "r1 inference mode": (lambda: in_inference_mode(wk.r1_penalty), RuntimeError, "inference mode is on.*leave"),
    "r1 number": (lambda: wk.r1_penalty(critic, 1.0), TypeError, "real.*float"),
    "r2 integers": (lambda: wk.r2_penalty(critic, X.long()), TypeError, "fake.*int64"),
    "dragan noise": (lambda: wk.dragan_penalty(critic, X, noise=X[:2]), ValueError, "noise has shape"),
    "dragan scale": (lambda: wk.dragan_penalty(critic, X, scale=NAN), ValueError, "scale is NaN"),
    # backends
    "backend unknown": (lambda: wk.use_backend("tpu").__enter__(), ValueError, "'tpu'.*'triton'"),
    "backend that cannot run": (lambda: in_backend("cuda"), RuntimeError, "'cuda'.*cannot run on cpu.*run on cuda"),
}


def in_inference_mode(penalty, *fake):
    with torch.inference_mode():
        penalty(critic, X, *fake)


def in_backend(name):
    with wk.use_backend(name):
        wk.interpolate(X, X)


@pytest.mark.parametrize(("call", "kind", "words"), BAD.values(), ids=BAD)
def test_bad_call(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize(
    "bad", [None, 1.0, torch.ones(3, dtype=torch.int64), torch.ones(1).expand(3), sparse()], ids=str
)
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_a_bad_tensor_anywhere_leaves_every_tensor_alone(bad, backend):
    for position in range(3):
        good = [torch.full((5,), 2.0), nn.Parameter(torch.full((2, 2), -3.0))]
        tensors = [*good[:position], bad, *good[position:]]
        with wk.use_backend(backend), pytest.raises((TypeError, RuntimeError), match=rf"params\[{position}\]"):
            wk.clip_(tensors, 1.0)
        assert good[0].tolist() == [2.0] * 5 and good[1].tolist() == [[-3.0, -3.0]] * 2


def test_there_are_enough():
    assert len(BAD) >= 40
