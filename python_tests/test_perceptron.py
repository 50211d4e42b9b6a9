"""A perceptron as one node is the chain of its layers, sweep by sweep, in penalties and in steps."""

import copy
import itertools
import weakref

import pytest
import torch
from cases import error
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk
from wgan_kernels import _dispatch, _native
from wgan_kernels.one_pass import trace_step
from wgan_kernels.one_pass.known import known_of

pytestmark = pytest.mark.skipif(_native.cpu is None, reason=f"needs the compiled part: {_native.why_not['cpu']}")


@pytest.fixture(autouse=True)
def wide_vectors(monkeypatch):
    """Served on any machine: the kernels run everywhere, only not fast."""
    monkeypatch.setattr(_dispatch, "has_wide_vectors", lambda: True)


class Counting(TorchDispatchMode):
    """Which of the sweeps were run by a kernel."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "perceptron" in func.name():
            self.seen.append(func.name().partition("perceptron_")[2])
        return func(*args, **(kwargs or {}))


def activation(slope):
    """slope: a number, or the name of a curve."""
    if isinstance(slope, str):
        return getattr(nn, slope)()
    return nn.ReLU() if slope == 0 else nn.LeakyReLU(slope)


CURVES = ["Tanh", "Sigmoid", "Softplus", "SiLU", "GELU", "ELU"]


def perceptron(*widths, slopes=(), biases=()):
    """Linear layers of these widths; slopes, None for no activation, and biases are repeated."""
    slopes, biases = itertools.cycle(slopes or [0.2]), itertools.cycle(biases or [True])
    layers = []
    for index, (inner, outer) in enumerate(itertools.pairwise(widths)):
        slope = next(slopes)
        layers.append(nn.Linear(inner, outer, bias=next(biases)))
        if slope is not None and index < len(widths) - 2:
            layers.append(activation(slope))
    return nn.Sequential(*layers)


def double(critic):
    return copy.deepcopy(critic).double()


# --- the sweeps -----------------------------------------------------------------------------------------------------
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
    program = trace_step(critic)
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
    exact = swept(exactly, trace_step(exactly), x.double(), split, seed.double(), t.double())
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
    program, x, how = trace_step(critic), torch.randn(samples, widths[0]), {"target": 0.2, "one_sided": one_sided}
    exactly = double(critic)
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        with torch.no_grad():
            sweeps = ((program.suited(x), x), (program, x), (trace_step(exactly), x.double()))
            ours, plain, exact = (program.penalty(x, **how) for program, x in sweeps)
    finally:
        torch.use_deterministic_algorithms(False)
    for result, theirs, truth in zip(ours, plain, exact, strict=True):
        allowed = 2 * error(theirs, truth) + 32 * torch.finfo(torch.float32).eps * (1 + truth.abs().max().item())
        assert result.shape == truth.shape and error(result, truth) <= allowed


def test_a_wide_gradient_and_none():
    critic = perceptron(9000, 33, 1, slopes=[0.0], biases=[False])
    x = torch.randn(40, 9000)
    x[::3] = 0  # where ReLUs of zeros have no gradient, nor their norm a derivative
    with torch.no_grad():
        results, expected = (
            sweeps.penalty(x, 1.0, False) for sweeps in (trace_step(critic).suited(x), trace_step(critic))
        )
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-7)
    assert not results[1][::3].any()


def test_rounding_errors_are_those_of_pytorch():
    critic = perceptron(784, 512, 512, 1, slopes=[0.2])
    program, x = trace_step(critic), torch.randn(192, 784)
    seed, t = torch.randn(192, 1), torch.randn(64, 784)
    exactly = double(critic)
    exact = swept(exactly, trace_step(exactly), x.double(), 128, seed.double(), t.double())
    for result, plain, truth in zip(
        swept(critic, program.suited(x), x, 128, seed, t), swept(critic, program, x, 128, seed, t), exact, strict=True
    ):
        rounded = torch.finfo(torch.float32).eps * truth.norm()
        assert (result - truth).norm() <= 2 * (plain - truth).norm() + rounded


def test_the_same_bits_on_one_thread_and_on_two():
    critic = perceptron(300, 200, 100, 1)
    program, x, t = trace_step(critic), torch.randn(100, 300), torch.randn(36, 300)
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
    found = swept(critic, trace_step(critic).suited(x), x, 4992, seed, t)
    exact = swept(critic := double(critic), trace_step(critic), x.double(), 4992, seed.double(), t.double())
    for result, truth in zip(found[3::2], exact[3::2], strict=True):
        assert (result - truth).norm() <= 4 * torch.finfo(torch.float32).eps * truth.norm()


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.5])
def test_a_kink_takes_the_piece_below(slope):
    critic = perceptron(4, 40, 33, 1, slopes=[slope], biases=[False])
    program, x, t = trace_step(critic), torch.randn(40, 4), torch.randn(20, 4)
    x[::3] = 0
    results, plain = (swept(critic, sweeps, x, 20, torch.ones(40, 1), t) for sweeps in (program.suited(x), program))
    torch.testing.assert_close(results, plain, rtol=1e-4, atol=1e-5)


def test_scores_have_the_critics_shape():
    critic, x = nn.Sequential(*perceptron(4, 8, 6), nn.Unflatten(1, (2, 3))), torch.randn(9, 4)
    scores, *_ = swept(critic, trace_step(critic).suited(x), x, 0, torch.ones(9, 6), torch.randn(9, 4))
    torch.testing.assert_close(scores, critic(x).detach())


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_and_its_derivatives(curve):
    """y, φ′ and φ″ by a perceptron of one feature each, far out too: 1·φ(1·x), whose weights then receive φ″ and φ′."""
    x = torch.cat([torch.linspace(-12, 12, 481), torch.tensor([-200.0, -90, -1e-6, -1e-12, 0, 1e-12, 1e-6, 90, 200])])
    critic = nn.Sequential(nn.Linear(1, 1), activation(curve), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        for param in critic.parameters():
            param.fill_(param.dim() - 1)  # the weights 1, the bias 0
    program, exactly = trace_step(critic), double(critic)
    for value in x.split(1):
        args = value.view(1, 1), 0, torch.ones(1, 1), torch.ones(1, 1)
        results = swept(critic, program.suited(args[0]), *args)
        exact = swept(exactly, trace_step(exactly), *(arg if isinstance(arg, int) else arg.double() for arg in args))
        for result, truth in zip(results, exact, strict=True):
            torch.testing.assert_close(result, truth.float(), rtol=4e-6, atol=3e-7)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_nan_and_infinity_stay_in_their_sample(slope):
    critic = perceptron(5, 7, 6, 1, slopes=[slope])
    program = trace_step(critic)
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
    program, x, t = trace_step(critic), torch.randn(40, 5), torch.randn(20, 5)
    clean = swept(critic, program.suited(x), x, 20, torch.ones(40, 1), t)
    for sample in (3, 25):
        x[sample, 2] = value
    results = swept(critic, program.suited(x), x, 20, torch.ones(40, 1), t)
    for result, before, touched in zip(results[:2], clean[:2], ([3, 25], [5]), strict=True):
        others = [i for i in range(len(result)) if i not in touched]
        assert torch.equal(result[others], before[others])
    if value != value:
        assert all(result.isnan().any() for result in results[:-1])  # the last bias has the number of samples


# --- in penalties and steps -----------------------------------------------------------------------------------------
CRITICS = {
    "toy": lambda: perceptron(2, 64, 64, 1, slopes=[0.0]),
    "images": lambda: nn.Sequential(nn.Flatten(), *perceptron(2 * 5 * 6, 33, 9, 1)),
    "behind": lambda: nn.Sequential(*perceptron(4, 33, 9, 1), nn.Flatten(0)),
    "many scores": lambda: perceptron(4, 33, 9, 3),
    "linear at last": lambda: perceptron(4, 33, 9, 8, 1, slopes=[0.2, None, None]),
    "active at last": lambda: nn.Sequential(*perceptron(4, 33, 9), nn.ReLU()),
    "in place": lambda: nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(0.1, inplace=True), nn.Linear(9, 1)),
    "a layer twice": lambda: (lambda layer: nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 1)))(nn.Linear(4, 4)),
    "a frozen bias": lambda: frozen(perceptron(4, 33, 9, 1), "2.bias"),
    "smooth": lambda: perceptron(4, 33, 9, 1, slopes=["SiLU", "Tanh"]),
    "smooth and many scores": lambda: perceptron(4, 33, 9, 3, slopes=["Softplus"]),
    "smooth, then not": lambda: perceptron(4, 33, 9, 8, 8, 1, slopes=["GELU", 0.0, "ELU", None]),
    "smooth at last": lambda: nn.Sequential(*perceptron(4, 33, 9, slopes=[0.2]), nn.Sigmoid()),
    "smooth without biases": lambda: perceptron(4, 33, 9, 1, slopes=["Tanh"], biases=[False, True]),
    "a smooth layer twice": lambda: (lambda f: nn.Sequential(f, nn.Tanh(), f, nn.Tanh(), nn.Linear(4, 1)))(
        nn.Linear(4, 4)
    ),
    "nested": lambda: nn.Sequential(perceptron(4, 33, 9), nn.Sequential(nn.ReLU(), nn.Linear(9, 1))),
}
IMAGES = (2, 5, 6)


def shape_of(name):
    return {"toy": (2,), "images": IMAGES}.get(name, (4,))


def frozen(critic, name):
    critic.get_parameter(name).requires_grad_(False)
    return critic


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("batch", [1, 50])
def test_a_penalty_has_autograds_gradients(name, batch):
    critic = CRITICS[name]()
    real, fake = torch.randn(2, batch, *shape_of(name))
    eps = torch.rand(batch)
    with Counting() as seen:
        penalty = wk.gradient_penalty(critic, real, fake, eps=eps)
        penalty.backward()
    assert seen.seen == ["penalty", "finish"]
    plain = copy.deepcopy(critic)
    plain.zero_grad()
    expected = wk.reference.gradient_penalty(plain, real, fake, eps=eps)
    expected.backward()
    torch.testing.assert_close(penalty, expected)
    for (label, param), theirs in zip(critic.named_parameters(), plain.parameters(), strict=True):
        assert (param.grad is None) is (theirs.grad is None), label
        if param.grad is not None:
            torch.testing.assert_close(param.grad, theirs.grad, msg=label, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("penalty", ["gp", "r1"])
def test_a_step_is_the_references(name, penalty):
    critic = CRITICS[name]()
    real, fake = torch.randn(2, 24, *shape_of(name))
    plain = copy.deepcopy(critic)
    ours = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), penalty, tune=False)
    theirs = wk.reference.CriticStep(plain, torch.optim.SGD(plain.parameters(), 0.1), penalty)
    with Counting() as seen:
        torch.manual_seed(1)
        found = ours(real, fake)
    assert seen.seen == ["begin", "finish"]
    torch.manual_seed(1)
    expected = theirs(real, fake)
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-4, atol=1e-5)
    for param, other in zip(critic.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(param, other, rtol=1e-4, atol=1e-5)


def weight_gradients(penalty, critic):
    return torch.autograd.grad(penalty, [critic[0].weight, critic[2].weight], retain_graph=True)


def assert_same_gradients(penalty, critic, x):
    """As of the reference's penalty."""
    expected = weight_gradients(wk.reference.r1_penalty(critic, x), critic)
    torch.testing.assert_close(weight_gradients(penalty, critic), expected, rtol=1e-4, atol=1e-6)


def test_samples_of_any_memory():
    critic = perceptron(6, 33, 1)
    whole = torch.randn(12, 50).t()
    for real in (whole[:, ::2], whole[::3, 3:9], torch.randn(3, 6).expand(3, 6)[:1].expand(4, 6)):
        penalty = wk.r1_penalty(critic, real)
        torch.testing.assert_close(penalty, wk.reference.r1_penalty(critic, real))
        assert_same_gradients(penalty, critic, real)


def test_two_graphs_at_once_and_kept_with_a_step_between():
    critic = perceptron(4, 33, 1)
    x, y = torch.randn(2, 20, 4)
    first, second = wk.r1_penalty(critic, x), wk.r1_penalty(critic, y)
    wk.CriticStep(critic, torch.optim.SGD([torch.ones(1)]), tune=False)(x, y)
    for _ in range(2):
        assert_same_gradients(first, critic, x)
        assert_same_gradients(second, critic, y)


def test_nothing_is_kept_and_a_critic_that_is_gone_is_forgotten():
    critic, x = perceptron(4, 33, 1), torch.randn(20, 4)
    wk.r1_penalty(critic, x).backward()
    (spare,) = known_of(critic, x).general.program.perceptron.spares
    assert spare.x is spare.weights is spare.biases is spare.kept is None
    weight = weakref.ref(critic[0].weight)
    del critic, spare
    assert weight() is None


@pytest.mark.parametrize("shape", [(9, 2, 2), (9, 4, 1)])
def test_samples_of_another_shape_are_refused_as_by_its_layers(shape):
    critic, x = perceptron(4, 8, 1), torch.randn(shape)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        wk.r1_penalty(critic, x)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), tune=False)(x, x)


def test_a_layer_that_mixes_the_sample_it_is_given():
    critic, x = nn.Sequential(nn.Flatten(0), *perceptron(1, 8, 1)), torch.randn(1, 1)
    torch.testing.assert_close(wk.r1_penalty(critic, x), wk.reference.r1_penalty(critic, x))


# --- who is served --------------------------------------------------------------------------------------------------
def with_strided_weight():
    critic = perceptron(4, 8, 1)
    critic[0].weight = nn.Parameter(torch.randn(4, 8).t())
    return critic


def with_bias(bias):
    critic = perceptron(4, 8, 1)
    critic[0].bias = nn.Parameter(bias)
    return critic


NOT_SERVED = {
    "double": lambda: perceptron(4, 8, 1).double(),
    "a frozen weight": lambda: frozen(perceptron(4, 8, 1), "0.weight"),
    "one layer": lambda: perceptron(4, 1),
    "another curve": lambda: nn.Sequential(nn.Linear(4, 8), nn.Hardswish(), nn.Linear(8, 1)),
    "a steep curve": lambda: nn.Sequential(nn.Linear(4, 8), nn.Softplus(2.0), nn.Linear(8, 1)),
    "an activation first": lambda: nn.Sequential(nn.ReLU(), *perceptron(4, 8, 1)),
    "two activations": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
    "a bounded activation": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 1)),
    "a norm": lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)),
    "weights in other memory": with_strided_weight,
    "a bias in other memory": lambda: with_bias(torch.randn(16)[::2]),
    "a bias for all": lambda: with_bias(torch.randn(1)),
    "a negated bias": lambda: with_bias(torch._neg_view(torch.randn(8))),
    "no features": lambda: perceptron(4, 0, 1),
    "a hook": lambda: hooked(perceptron(4, 8, 1)),
    "a pruned weight": lambda: pruned(perceptron(4, 8, 1)),
}


def hooked(critic):
    critic[0].register_forward_hook(lambda module, args, y: y)
    return critic


def pruned(critic):
    prune.identity(critic[0], "weight")
    return critic


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", NOT_SERVED)
def test_others_are_not_served(name):
    critic = NOT_SERVED[name]()
    dtype = next(critic.parameters()).dtype
    real = torch.randn(9, 4, dtype=dtype)
    with Counting() as seen:
        wk.r1_penalty(critic, real).backward()
    assert seen.seen == []
    trained = [param for param in critic.parameters() if param.requires_grad]
    penalty = wk.reference.r1_penalty(critic, real)
    torch.testing.assert_close(wk.r1_penalty(critic, real), penalty)
    expected = torch.autograd.grad(penalty, trained, allow_unused=True)
    for param, theirs in zip(trained, expected, strict=True):
        if param.grad is not None and theirs is not None:
            torch.testing.assert_close(param.grad, theirs, rtol=1e-4, atol=1e-6)


# Each sample takes the place of 32, unless there are enough of them.
@pytest.mark.parametrize(("width", "batch", "is_served"), [(8, 1, True), (600, 2, False), (600, 12, True)])
def test_few_samples_of_a_wide_critic_take_its_layers(width, batch, is_served):
    with Counting() as seen:
        wk.r1_penalty(perceptron(width, width, width, 1), torch.randn(batch, width)).backward()
    assert bool(seen.seen) is is_served


def test_sequences_of_samples_take_their_layers():
    critic = perceptron(4, 8, 1)  # of each of three parts of a sample
    real = torch.randn(9, 3, 4)
    with Counting() as seen:
        torch.testing.assert_close(wk.r1_penalty(critic, real), wk.reference.r1_penalty(critic, real))
    assert seen.seen == []


def test_what_surrounds_a_critic_bars_the_kernels():
    critic, real = perceptron(4, 8, 1), torch.randn(9, 4)
    with Counting() as seen:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            wk.r1_penalty(critic, real).backward()
        with wk.use_backend("reference"):
            wk.r1_penalty(critic, real).backward()
    assert seen.seen == []


def test_a_machine_without_wide_vectors(monkeypatch):
    monkeypatch.setattr(_dispatch, "has_wide_vectors", lambda: False)
    with Counting() as seen:
        wk.r1_penalty(perceptron(4, 8, 1), torch.randn(9, 4)).backward()
    assert seen.seen == []
