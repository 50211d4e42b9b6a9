"""A perceptron as one node is the chain of its layers, sweep by sweep."""

import pytest
import torch
from cases import error, needs_compiled
from critics import program_of
from hypothesis import given
from hypothesis import strategies as st
from perceptrons import CURVES, activation, double, perceptron
from torch import nn

from wgan_kernels.one_pass import losses

pytestmark = [needs_compiled, pytest.mark.usefixtures("vectors")]


@torch.no_grad()
def swept(critic, program, x, split, seed, t):
    """[scores, the gradient, then each parameter's]"""
    scores, gradient = program.begin(x.clone(), split, lambda scores: seed.view_as(scores))
    found = {id(param): grad for param, grad in program.finish(t)}
    program.forget()
    return [scores, gradient, *(found.get(id(param)) for param in critic.parameters())]


widths = st.lists(st.sampled_from([1, 2, 3, 7, 12, 16, 31, 32, 33, 70]), min_size=3, max_size=6)


@given(
    widths,
    st.lists(st.sampled_from([0.0, 0.2, 1.5, None, *CURVES]), min_size=1, max_size=3),
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.integers(0, 70),
    st.integers(1, 70),
    st.integers(0, 99),
)
def test_any_shape(widths, slopes, biases, split, points, number):
    torch.manual_seed(number)
    critic = perceptron(*widths, slopes=slopes, biases=biases)
    program = program_of(critic)
    x, seed = torch.randn(split + points, widths[0]), torch.randn(split + points, widths[-1])
    t = torch.randn(points, widths[0])
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        results = swept(critic, program.suited(x), x, split, seed, t)
    finally:
        torch.use_deterministic_algorithms(False)
    assert program.suited(x) is program.perceptron
    plain = swept(critic, program, x, split, seed, t)
    exactly = double(critic)
    exact = swept(exactly, program_of(exactly), x.double(), split, seed.double(), t.double())
    for result, theirs, truth in zip(results, plain, exact, strict=True):
        assert (result is None) is (theirs is None)
        if result is not None:
            assert result.shape == truth.shape and result.dtype == torch.float32
            # An activation at its kink may take the other piece where sums round otherwise.
            allowed = 2 * error(theirs, truth) + 32 * torch.finfo(torch.float32).eps * (1 + truth.abs().max().item())
            assert error(result, truth) <= allowed


@given(widths, st.sampled_from([0.0, 0.2, None, *CURVES]), st.integers(1, 70), st.booleans(), st.integers(0, 99))
def test_any_penalty(widths, slope, samples, one_sided, number):
    torch.manual_seed(number)
    critic = perceptron(*widths, slopes=[slope])
    program, x, how = program_of(critic), torch.randn(samples, widths[0]), {"target": 0.2, "one_sided": one_sided}
    exactly = double(critic)
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        with torch.no_grad():
            sweeps = ((program.suited(x), x), (program, x), (program_of(exactly), x.double()))
            ours, plain, exact = (program.penalty(x, **how) for program, x in sweeps)
    finally:
        torch.use_deterministic_algorithms(False)
    for result, theirs, truth in zip(ours, plain, exact, strict=True):
        allowed = 2 * error(theirs, truth) + 32 * torch.finfo(torch.float32).eps * (1 + truth.abs().max().item())
        assert result.shape == truth.shape and error(result, truth) <= allowed


@given(widths, st.sampled_from([0.0, 0.2, None, *CURVES]), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_any_step(widths, slope, batch, one_sided, number):
    torch.manual_seed(number)
    critic = perceptron(*widths, slopes=[slope])
    program, x, exactly = program_of(critic), torch.randn(3 * batch, widths[0]), double(critic)
    how = {"weight": 3.0, "factor": 0.5, "target": 0.2, "one_sided": one_sided}

    def told(critic, sweeps, x):
        metrics, received = sweeps.step(x.clone(), **how)
        received = {id(param): grad for param, grad in received}
        return [metrics[name] for name in losses.NAMES], [received[id(param)] for param in critic.parameters()]

    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        ours, plain, exact = (
            [result for part in told(*each) for result in part]
            for each in (
                (critic, program.suited(x), x),
                (critic, program, x),
                (exactly, program_of(exactly), x.double()),
            )
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert program.suited(x) is program.perceptron
    for result, theirs, truth in zip(ours, plain, exact, strict=True):
        allowed = 2 * error(theirs, truth) + 32 * torch.finfo(torch.float32).eps * (1 + truth.abs().max().item())
        assert result.shape == truth.shape and error(result, truth) <= allowed


def test_a_wide_gradient_and_none():
    critic = perceptron(9000, 33, 1, slopes=[0.0], biases=[False])
    x = torch.randn(40, 9000)
    x[::3] = 0  # where ReLUs of zeros have no gradient, nor their norm a derivative
    with torch.no_grad():
        results, expected = (
            sweeps.penalty(x, 1.0, False) for sweeps in (program_of(critic).suited(x), program_of(critic))
        )
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-7)
    assert not results[1][::3].any()


def test_rounding_errors_are_those_of_pytorch():
    critic = perceptron(784, 512, 512, 1, slopes=[0.2])
    program, x = program_of(critic), torch.randn(192, 784)
    seed, t = torch.randn(192, 1), torch.randn(64, 784)
    exactly = double(critic)
    exact = swept(exactly, program_of(exactly), x.double(), 128, seed.double(), t.double())
    for result, plain, truth in zip(
        swept(critic, program.suited(x), x, 128, seed, t), swept(critic, program, x, 128, seed, t), exact, strict=True
    ):
        rounded = torch.finfo(torch.float32).eps * truth.norm()
        assert (result - truth).norm() <= 2 * (plain - truth).norm() + rounded


def test_the_same_bits_on_one_thread_and_on_two():
    critic = perceptron(300, 200, 100, 1)
    program, x, t = program_of(critic), torch.randn(100, 300), torch.randn(36, 300)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(swept(critic, program.suited(x), x, 64, torch.ones(100, 1), t))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_biases_of_many_samples_are_summed_in_two_levels():
    critic, x, seed, t = perceptron(8, 16, 1), torch.rand(5000, 8), torch.rand(5000, 1), torch.randn(8, 8)
    found = swept(critic, program_of(critic).suited(x), x, 4992, seed, t)
    exact = swept(critic := double(critic), program_of(critic), x.double(), 4992, seed.double(), t.double())
    for result, truth in zip(found[3::2], exact[3::2], strict=True):
        assert (result - truth).norm() <= 4 * torch.finfo(torch.float32).eps * truth.norm()


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.5])
def test_a_kink_takes_the_piece_below(slope):
    critic = perceptron(4, 40, 33, 1, slopes=[slope], biases=[False])
    program, x, t = program_of(critic), torch.randn(40, 4), torch.randn(20, 4)
    x[::3] = 0
    results, plain = (swept(critic, sweeps, x, 20, torch.ones(40, 1), t) for sweeps in (program.suited(x), program))
    torch.testing.assert_close(results, plain, rtol=1e-4, atol=1e-5)


def test_scores_have_the_critics_shape():
    critic, x = nn.Sequential(*perceptron(4, 8, 6), nn.Unflatten(1, (2, 3))), torch.randn(9, 4)
    scores, *_ = swept(critic, program_of(critic).suited(x), x, 0, torch.ones(9, 6), torch.randn(9, 4))
    torch.testing.assert_close(scores, critic(x).detach())


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_and_its_derivatives(curve):
    """y, φ′ and φ″ by a perceptron of one feature each, far out too: 1·φ(1·x), whose weights then receive φ″ and φ′."""
    x = torch.cat([torch.linspace(-12, 12, 481), torch.tensor([-200.0, -90, -1e-6, -1e-12, 0, 1e-12, 1e-6, 90, 200])])
    critic = nn.Sequential(nn.Linear(1, 1), activation(curve), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for param in critic.parameters():
            param.fill_(param.dim() - 1)  # the weights 1, the bias 0
    program, exactly = program_of(critic), double(critic)
    for value in x.split(1):
        args = value.view(1, 1), 0, torch.ones(1, 1), torch.ones(1, 1)
        results = swept(critic, program.suited(args[0]), *args)
        exact = swept(exactly, program_of(exactly), *(arg if isinstance(arg, int) else arg.double() for arg in args))
        for result, truth in zip(results, exact, strict=True):
            torch.testing.assert_close(result, truth.float(), rtol=4e-6, atol=3e-7)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_nan_and_infinity_stay_in_their_sample(slope):
    critic = perceptron(5, 7, 6, 1, slopes=[slope])
    program = program_of(critic)
    x, t = torch.randn(40, 5), torch.randn(40, 5)
    clean = swept(critic, program.suited(x), x, 0, torch.ones(40, 1), t)
    for value in (float("nan"), float("inf"), -float("inf")):
        x[3, 2] = value
        results = swept(critic, program.suited(x), x, 0, torch.ones(40, 1), t)
        plain = swept(critic, program, x, 0, torch.ones(40, 1), t)
        others = torch.arange(40) != 3
        for result, theirs, before in zip(results[:2], plain[:2], clean[:2], strict=True):
            assert torch.equal(result[others], before[others])
            torch.testing.assert_close(result, theirs, equal_nan=True)
        for result, theirs in zip(results[2:], plain[2:], strict=True):
            assert (result is None and theirs is None) or torch.equal(result.isnan(), theirs.isnan())


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_sample_of_a_curved_critic(curve, value):
    critic = perceptron(5, 7, 6, 1, slopes=[curve])
    program, x, t = program_of(critic), torch.randn(40, 5), torch.randn(20, 5)
    clean = swept(critic, program.suited(x), x, 20, torch.ones(40, 1), t)
    for sample in (3, 25):
        x[sample, 2] = value
    results = swept(critic, program.suited(x), x, 20, torch.ones(40, 1), t)
    for result, before, touched in zip(results[:2], clean[:2], ([3, 25], [5]), strict=True):
        others = [i for i in range(len(result)) if i not in touched]
        assert torch.equal(result[others], before[others])
    if value != value:
        assert all(result.isnan().any() for result in results[:-1])  # the last bias has the number of samples
