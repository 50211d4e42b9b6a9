"""The kernels of a perceptron by themselves: their schemas, no samples, and what they refuse."""

import pytest
import torch
from cases import needs_compiled

import wgan_kernels as wk

pytestmark = needs_compiled
operators = torch.ops.wgan_kernels


def arguments(split=3, points=2, curves=(0, 0), asked=None):
    weights, biases, slopes = [torch.randn(5, 4), torch.randn(2, 5)], [torch.randn(5), None], [0.2, 1.0]
    how = slopes, list(curves)
    x, seed = torch.randn(split + points, 4), torch.randn(split + points, 2)
    asked = split if asked is None else asked
    _, _, values, deltas = operators.perceptron_begin(x, seed, weights, biases, *how, split, asked)
    return {
        "begin": (x, seed, weights, biases, *how, split, asked),
        "penalty": (x, weights, biases, *how, 1.0, False, 1, 2),
        "finish": (x, torch.randn(points, 4), values, deltas, weights, *how),
        "step": (torch.randn(3 * (split + 1), 4), weights, biases, *how, 1.0, False, 10.0, 0.5),
    }


@pytest.mark.parametrize("curves", [(0, 0), (1, 0), (4, 5)])
@pytest.mark.parametrize("split", [0, 3, 32, 33, 70])
@pytest.mark.parametrize("name", ["begin", "penalty", "finish", "step"])
def test_opcheck(name, split, curves):
    given, tests = arguments(split, curves=curves)[name], ("test_schema", "test_faketensor")
    torch.library.opcheck(getattr(operators, f"perceptron_{name}").default, given, test_utils=tests)


@pytest.mark.parametrize("curves", [(0, 0), (3, 0)])
def test_no_samples(curves):
    x, _, weights, biases, *how, _, _ = arguments(curves=curves)["begin"]
    empty = x[:0], x.new_empty(0, 2)
    _, _, values, deltas = operators.perceptron_begin(*empty, weights, biases, *how, 0, 0)
    penalty, derivative, norms, *_ = operators.perceptron_penalty(x[:0], weights, biases, *how, 1.0, False, 0, 4)
    assert penalty.isnan() and derivative.shape == (0, 4) and norms.shape == (0,)
    for grad in operators.perceptron_finish(x[:0], x[:0], values, deltas, weights, *how):
        assert not grad.any()


@pytest.mark.parametrize("split", [0, 3, 32, 33])
def test_no_tangents(split):
    x, seed, weights, biases, *how, _, _ = arguments(split, 0, curves=(1, 0))["begin"]
    kept = operators.perceptron_begin(x, seed, weights, biases, *how, split, split)[2:]
    found = operators.perceptron_finish(x, x[:0], *kept, weights, *how)
    weights, bias = [weight.requires_grad_() for weight in weights], biases[0].requires_grad_()
    scores = torch.tanh(x @ weights[0].t() + bias) @ weights[1].t()
    expected = torch.autograd.grad(scores, [*weights, bias], seed)
    torch.testing.assert_close(found[:3], list(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("curves", [(0, 0), (4, 5)])
@pytest.mark.parametrize(("split", "asked"), [(0, 0), (40, 0), (40, 3), (40, 32), (40, 35), (40, 40), (70, 64)])
def test_a_gradient_is_told_from_any_sample_on(split, asked, curves):
    *given, _ = arguments(split, 50, curves)["begin"]
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(operators.perceptron_begin.default, (*given, asked), test_utils=tests)
    (scores, gradient, *kept), (same, last, *too) = (operators.perceptron_begin(*given, at) for at in (0, asked))
    assert len(last) == split + 50 - asked and torch.equal(gradient[asked:], last)
    assert torch.equal(scores, same) and all(map(torch.equal, kept, too))


@pytest.mark.parametrize(("first", "width"), [(0, 4), (0, 3), (1, 3), (1, 1), (2, 0)])
def test_a_penalty_of_some_features(first, width):
    x, weights, biases, *how = arguments(33, 7, curves=(1, 0))["penalty"][:5]
    penalty, derivative, norms, *_ = operators.perceptron_penalty(x, weights, biases, *how, 0.3, False, first, width)
    whole = operators.perceptron_begin(x, torch.ones(40, 2), weights, biases, *how, 0, 0)[1]
    some = whole[:, first : first + width].clone().requires_grad_()
    expected = wk.reference.gradient_norm_penalty(some, target=0.3)
    torch.testing.assert_close(penalty, expected.detach())
    torch.testing.assert_close(norms, some.detach().norm(dim=1))
    expected = torch.autograd.grad(expected, some)[0] if width else some
    torch.testing.assert_close(derivative[:, first : first + width], expected.detach())
    assert not derivative[:, :first].any() and not derivative[:, first + width :].any()


WRONG = {
    "x of doubles": ("begin", 0, lambda x: x.double()),
    "x of another width": ("begin", 0, lambda x: x[:, :3].contiguous()),
    "x in other memory": ("begin", 0, lambda x: x.t().contiguous().t()),
    "another seed": ("begin", 1, lambda seed: seed[:, :1].contiguous()),
    "empty weights": ("begin", slice(2, 4), lambda _: [[torch.zeros(0, 4), torch.zeros(2, 0)], [None, None]]),
    "weights that do not fit": ("begin", 2, lambda weights: weights[::-1]),
    "a bias too long": ("begin", 3, lambda biases: [torch.zeros(9), None]),
    "a bias missing": ("begin", 3, lambda biases: biases[:1]),
    "a slope missing": ("begin", 4, lambda slopes: slopes[:1]),
    "a curve missing": ("begin", 5, lambda curves: curves[:1]),
    "no such curve": ("begin", 5, lambda curves: [0, 7]),
    "a negative curve": ("begin", 5, lambda curves: [0, -1]),
    "no such split": ("begin", 6, lambda split: 9),
    "a negative split": ("begin", 6, lambda split: -1),
    "a gradient behind the split": ("begin", 7, lambda asked: 4),
    "a gradient before the first": ("begin", 7, lambda asked: -1),
    "a penalty of doubles": ("penalty", 0, lambda x: x.double()),
    "a penalty of another width": ("penalty", 0, lambda x: x[:, :3].contiguous()),
    "a penalty of single numbers": ("penalty", 0, lambda x: x[0, 0]),
    "a penalty of features that are missing": ("penalty", 8, lambda width: 4),
    "a penalty from before the first": ("penalty", 7, lambda first: -1),
    "a penalty of less than nothing": ("penalty", 8, lambda width: -1),
    "a penalty with a bias too long": ("penalty", 2, lambda biases: [torch.zeros(9), None]),
    "a step of samples that are not three batches": ("step", 0, lambda x: x[:10]),
    "a step of no samples": ("step", 0, lambda x: x[:0]),
    "a step of doubles": ("step", 0, lambda x: x.double()),
    "a step with a bias too long": ("step", 2, lambda biases: [torch.zeros(9), None]),
    "other values": ("finish", 2, lambda values: values[:, :3].contiguous()),
    "values and deltas of doubles": ("finish", slice(2, 4), lambda both: [each.double() for each in both]),
    "deltas of doubles": ("finish", 3, lambda deltas: deltas.double()),
    "other deltas": ("finish", 3, lambda deltas: deltas[:, :3].contiguous()),
    "tangents too wide": ("finish", 1, lambda t: torch.randn(2, 5)),
    "more tangents than samples": ("finish", 1, lambda t: torch.randn(9, 4)),
    "samples that are missing": ("finish", 0, lambda x: torch.randn(40, 4)),
    "values and deltas of another curve": ("finish", 6, lambda curves: [1, 0]),
}


@pytest.mark.parametrize("name", WRONG)
def test_operators_refuse_what_does_not_fit(name):
    which, place, change = WRONG[name]
    given = list(arguments()[which])
    given[place] = change(given[place])
    with pytest.raises(RuntimeError, match=f"perceptron_{which}"):
        getattr(operators, f"perceptron_{which}")(*given)
