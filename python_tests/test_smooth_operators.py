"""Smooth activations by kernels: beside PyTorch's in double precision, in either memory, and what they refuse."""

import pytest
import torch
from cases import error, needs_compiled
from torch import nn

import wgan_kernels as wk
from wgan_kernels import _dispatch
from wgan_kernels.rules import _smooth, smooth

pytestmark = needs_compiled
CURVES = {
    "tanh": smooth.tanh,
    "sigmoid": smooth.sigmoid,
    "softplus": smooth.softplus(),
    "silu": smooth.silu,
    "gelu": smooth.gelu,
    "elu": smooth.elu(),
}
every = pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
EPS = torch.finfo(torch.float32).eps


def samples(*shape):
    """t, δ, r, bent and x, with what is far away, next to zero and zero."""
    torch.manual_seed(1)
    t, delta, r, bent, x = torch.randn(5, *shape)
    flat = (x.mul_(3)).view(-1)
    ends = torch.tensor([0.0, -0.0, 1e-9, -1e-9, 30.0, -30.0, 100.0, -100.0, 1e4, -1e4])
    flat[: len(ends)] = ends[: len(flat)]
    return t, delta, r, bent, x


def results(maps, t, delta, r, bent, x):
    y = maps.forward(x)
    kept = y if maps.of_result else x
    return [y, maps.pullback(delta, kept), *maps.second(t, delta, kept), maps.pullback_onto(bent.clone(), r, kept)]


@pytest.fixture
def poisoned():
    """Outputs full of NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("shape", [(1,), (7, 3), (70_001,), (5, 6, 9, 7), (64, 32, 14, 14)], ids=str)
@every
def test_as_exact_as_eager(curve, shape, poisoned):
    given = samples(*shape)
    found, theirs = (results(maps, *given) for maps in (_smooth.Kernels(curve), curve))
    exact = results(curve, *(each.double() for each in given))
    for ours, eager, true in zip(found, theirs, exact, strict=True):
        finite = true.abs() < 1e30
        assert ours.shape == true.shape and error(ours[finite], true[finite]) <= 2 * error(
            eager[finite], true[finite]
        ) + 4 * EPS * (1 + true[finite].abs().clamp_max(100).max().item())


@every
def test_in_channels_last_memory(curve):
    given = samples(5, 6, 9, 7)
    turned = [each.contiguous(memory_format=torch.channels_last) for each in given]
    for flat, last in zip(
        results(_smooth.Kernels(curve), *given), results(_smooth.Kernels(curve), *turned), strict=True
    ):
        torch.testing.assert_close(flat, last)  # an element may be in a loop's tail in one of them
        assert last.is_contiguous(memory_format=torch.channels_last)


@every
def test_what_is_no_number_stays_where_it_is(curve):
    t, delta, r, bent, x = samples(100)
    x[50] = float("nan")
    for found in results(_smooth.Kernels(curve), t, delta, r, bent, x):
        assert found[50].isnan() and not found[:50].isnan().any() and not found[51:].isnan().any()


@every
def test_nothing(curve):
    for found in results(_smooth.Kernels(curve), *torch.randn(5, 0, 3)):
        assert found.shape == (0, 3)


@every
def test_opcheck(curve):
    t, delta, _, bent, x = samples(9, 5)
    number = _smooth.CURVES.index(curve.name)
    for operator, given in (
        (_smooth.fwd, (x, number)),
        (_smooth.bwd, (delta, x, None, number)),
        (_smooth.bwd, (delta, x, bent, number)),
        (_smooth.bwd_bwd, (t, delta, x, number)),
    ):
        torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))


WRONG = {
    "doubles": lambda t, x: (t.double(), x.double(), None, 1),
    "another size": lambda t, x: (t[1:], x, None, 1),
    "another memory": lambda t, x: (t.t(), x.t(), None, 1),
    "a sum of another size": lambda t, x: (t, x, x[1:], 1),
    "no curve": lambda t, x: (t, x, None, 0),
    "no such curve": lambda t, x: (t, x, None, 7),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    with pytest.raises(RuntimeError, match="smooth_bwd"):
        _smooth.bwd(*WRONG[name](*torch.randn(2, 6, 4)))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_who_takes_them(backend):
    x = torch.randn(8, 4, 6, 6)
    with wk.use_backend(backend):
        for kept in (x, x.contiguous(memory_format=torch.channels_last)):
            is_taken = isinstance(_smooth.suited(smooth.silu, kept), _smooth.Kernels)
            assert is_taken == (backend == "auto" and _dispatch.has_vectors())
    for other in (x.double(), x.half(), x[:, :, ::2], x.transpose(1, 2)):
        assert _smooth.suited(smooth.silu, other) is smooth.silu
    assert _smooth.suited(smooth.softplus(2.0), x) is smooth.softplus(2.0)
    assert _smooth.suited(smooth.hardswish, x) is smooth.hardswish


@pytest.mark.parametrize("make", [nn.Tanh, nn.Sigmoid, nn.Softplus, nn.SiLU, nn.GELU, nn.ELU])
@pytest.mark.parametrize("way", ["penalty", "step"])
def test_convolutions(make, way):
    found = []
    for of, dtype in ((wk, torch.float32), (wk.reference, torch.float32), (wk.reference, torch.float64)):
        torch.manual_seed(2)
        layers = [nn.Conv2d(1, 8, 4, 2, 1), make(), nn.Conv2d(8, 8, 3), make(), nn.Flatten(), nn.Linear(128, 1)]
        critic, (x, y) = nn.Sequential(*layers).to(dtype), torch.randn(2, 9, 1, 12, 12).to(dtype)
        if way == "penalty":
            value = of.gradient_penalty(critic, x, y, eps=torch.linspace(0, 1, 9, dtype=dtype))
            found.append([value.detach(), *torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)])
        else:
            step = (
                of.CriticStep(critic, torch.optim.SGD(critic.parameters(), 1.0), "r1", tune=False) if of is wk else None
            )
            step = step or of.CriticStep(critic, torch.optim.SGD(critic.parameters(), 1.0), "r1")
            step(x, y)
            found.append([param.detach() for param in critic.parameters()])
    for ours, theirs, true in zip(*found, strict=True):
        assert (ours is None) == (true is None)
        if true is not None:
            assert error(ours, true) <= 2 * error(theirs, true) + 32 * EPS * (1e-2 + true.abs().max().item())
