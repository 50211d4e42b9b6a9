"""Penalties of critics put together of torch's layers alone, which are one node of the graph."""

import copy
import gc
import threading

import pytest
import torch
from critics import critics, is_on_a_kink, is_one_node
from critics import of as of_dims
from hypothesis import assume, event, given
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import wgan_kernels as wk
from wgan_kernels import penalty
from wgan_kernels.one_pass.known import _known, known_of

EXACT = {"rtol": 1e-10, "atol": 1e-12}
FOLLOWS_THE_BIAS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 15)


def digits(*behind):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1),
        *behind,
        nn.LeakyReLU(0.2),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 1),
    ).double()


def perceptron():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Hardtanh(), nn.Linear(5, 1)).double()


SEQUENTIALS = {
    "images": (digits, (5, 1, 8, 8)),
    "layer norm": (lambda: digits(nn.LayerNorm((6, 4, 4))), (5, 1, 8, 8)),
    "group norm": (lambda: digits(nn.GroupNorm(3, 6)), (5, 1, 8, 8)),
    "norms without weights": (
        lambda: nn.Sequential(
            nn.Linear(4, 6),
            nn.ReLU(),
            nn.LayerNorm(6, elementwise_affine=False),
            nn.Linear(6, 4),
            nn.GroupNorm(2, 4, affine=False),
            nn.ReLU(),
            nn.LayerNorm(4, bias=False),
            nn.Linear(4, 1),
        ).double(),
        (5, 4),
    ),
    "a norm before a linear end": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1)).double(),
        (5, 4),
    ),
    "an instance norm before a linear end": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.InstanceNorm2d(4, affine=True), nn.Flatten(), nn.Linear(16, 1)
        ).double(),
        (5, 2, 4, 4),
    ),
    "a group norm before a linear end": (
        # PyTorch 2.15 gives a bias that nothing bends behind zeros, which the rule does everywhere; 2.13 gives nothing
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4, affine=FOLLOWS_THE_BIAS), nn.Flatten(), nn.Linear(16, 1)
        ).double(),
        (5, 2, 4, 4),
    ),
    "a linear layer over each row of pixels": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 1)
        ).double(),
        (5, 2, 8, 8),
    ),
    "points": (perceptron, (5, 4)),
    "sequences": (perceptron, (5, 3, 4)),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).double(), (5, 4)),
    "patches": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 1, 2, bias=False)).double(),
        (5, 2, 6, 6),
    ),
}


def results(of, name, critic, *args, **kwargs):
    """The value, and what each parameter receives, None included."""
    for param in critic.parameters():
        param.grad = None
    value = getattr(of, name)(critic, *args, **kwargs)
    value.backward()
    return [value.detach(), *(param.grad for param in critic.parameters())]


def assert_same(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if a is not None:
            torch.testing.assert_close(a, e, **(tolerance or EXACT))


@pytest.mark.parametrize("name", ["gradient_penalty", "r1_penalty", "dragan_penalty"])
@pytest.mark.parametrize(("make", "shape"), SEQUENTIALS.values(), ids=SEQUENTIALS)
def test_value_and_gradients(make, shape, name):
    critic, x = make(), torch.randn(shape).double()
    before = x.clone()
    settings = {"gradient_penalty": (-x, {"eps": torch.rand(5).double()}), "dragan_penalty": ((), {"noise": x.abs()})}
    more, named = settings.get(name, ((), {}))
    args = (x, more) if isinstance(more, torch.Tensor) else (x,)
    assert is_one_node(getattr(wk, name)(critic, *args, **named))
    for _ in range(2):
        assert_same(results(wk, name, critic, *args, **named), results(wk.reference, name, critic, *args, **named))
    assert torch.equal(x, before)
    for param in list(critic.parameters())[:2]:
        param.requires_grad_(False)
    assert_same(results(wk, name, critic, *args, **named), results(wk.reference, name, critic, *args, **named))


@given(critics())
def test_any_critic(drawn):
    """Who receives zeros, and who nothing."""
    critic, x = drawn
    with sdpa_kernel(SDPBackend.MATH):
        assume(not is_on_a_kink(copy.deepcopy(critic), x))
        norms = wk.reference.penalty.input_gradient(critic, x).flatten(1).norm(dim=1)
        assume(not ((norms > 0) & (norms < 1e-9)).any())
        value = wk.r1_penalty(critic, x)
        event("one node" if value.grad_fn is not None and is_one_node(value) else "by calls")
        expected = results(wk.reference, "r1_penalty", critic, x)
        scale = max([1.0, *(grad.abs().max().item() for grad in expected[1:] if grad is not None and grad.numel())])
        assert_same(results(wk, "r1_penalty", critic, x), expected, rtol=1e-7, atol=1e-9 * scale)


KINDS = {
    "maximum": lambda dims: of_dims(dims, "MaxPool")(2),
    "overlapping maxima": lambda dims: of_dims(dims, "MaxPool")(3, 1, 1, 1, ceil_mode=True),
    "adaptive maximum": lambda dims: of_dims(dims, "AdaptiveMaxPool")(2),
    "a learnt slope": lambda dims: nn.PReLU(),
    "one for each channel": lambda dims: nn.PReLU(4),
    "average": lambda dims: of_dims(dims, "AvgPool")(2),
    "adaptive": lambda dims: of_dims(dims, "AdaptiveAvgPool")(2),
    "the mean": lambda dims: of_dims(dims, "AdaptiveAvgPool")(1),
    "zeros around": lambda dims: of_dims(dims, "ZeroPad")(1),
    "larger": lambda dims: nn.Upsample(scale_factor=2),
    "fewer channels": lambda dims: nn.PixelShuffle(2) if dims == 2 else nn.Identity(),
}


@pytest.mark.parametrize("bend", [nn.Identity, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind(make, dims, bend):
    """Of some that are linear autograd believes that they bend, and sends zeros."""
    torch.manual_seed(4)
    layers = [of_dims(dims, "Conv")(2, 4, 3, padding=1), make(dims), bend(), nn.Flatten()]
    x = torch.randn(3, 2, *[4] * dims)
    critic = nn.Sequential(*layers, nn.Linear(nn.Sequential(*layers)(x).shape[1], 1)).double()
    x = x.double()
    assert is_one_node(wk.r1_penalty(critic, x))
    assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))


def test_several_at_once():
    """Penalties whose graphs live at the same time, run in another order than they were made, and one that never is."""
    critic, first, second = digits(), torch.randn(4, 1, 8, 8).double(), torch.randn(3, 1, 8, 8).double()
    expected = [results(wk.reference, "r1_penalty", critic, x)[1:] for x in (first, second)]
    wk.r1_penalty(critic, first)
    values = [wk.r1_penalty(critic, x) for x in (first, second)]
    params = list(critic.parameters())
    for k in (1, 0):
        assert_same(torch.autograd.grad(values[k], params, allow_unused=True), expected[k])
    total = wk.r1_penalty(critic, first) + 2 * wk.r1_penalty(critic, second)
    sums = [None if a is None else a + 2 * b for a, b in zip(*expected, strict=True)]
    assert_same(torch.autograd.grad(total, params, allow_unused=True), sums)


def test_a_graph_that_is_kept():
    critic, x = digits(nn.LayerNorm((6, 4, 4))), torch.randn(4, 1, 8, 8).double()
    expected = results(wk.reference, "r1_penalty", critic, x)[1:]
    value, params = wk.r1_penalty(critic, x), list(critic.parameters())
    for kept in (True, True, False):
        assert_same(torch.autograd.grad(value, params, retain_graph=kept, allow_unused=True), expected)
    with pytest.raises(RuntimeError, match="second time"):
        value.backward()


def test_some_parameters_alone():
    critic, x = digits(), torch.randn(4, 1, 8, 8).double()
    weight = critic[2].weight
    (actual,) = torch.autograd.grad(wk.r1_penalty(critic, x), [weight])
    (expected,) = torch.autograd.grad(wk.reference.r1_penalty(critic, x), [weight])
    torch.testing.assert_close(actual, expected, **EXACT)


def test_derivatives_beyond_the_second():
    critic, x = perceptron(), torch.randn(5, 4).double()
    critic[1], critic[3] = nn.LeakyReLU(0.1), nn.ReLU6()
    params, found = list(critic.parameters()), []
    for of in (wk, wk.reference):
        grads = torch.autograd.grad(of.r1_penalty(critic, x), params, create_graph=True, allow_unused=True)
        total = sum(grad.square().sum() for grad in grads if grad is not None)
        found.append(torch.autograd.grad(total, params, allow_unused=True, materialize_grads=True))
    assert_same(*found)


def test_a_parameter_that_changes_before_the_backward_is_refused():
    critic, x = perceptron(), torch.randn(5, 4).double()
    value = wk.r1_penalty(critic, x)
    with torch.no_grad():
        critic[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


class Own(nn.Module):
    """A user's module, whose forward does what it likes."""

    def __init__(self):
        super().__init__()
        self.net, self.calls = perceptron(), []

    def forward(self, x):
        self.calls.append(x.shape)
        return self.net(x)


def hooked():
    critic = perceptron()
    critic.seen = []
    critic[0].register_forward_hook(lambda *_: critic.seen.append(1))
    return critic


def patched():
    """As a test does that counts calls."""
    critic = perceptron()
    critic.calls, forward = [], critic.forward
    critic.forward = lambda x: critic.calls.append(1) or forward(x)
    return critic


BY_CALLS = {
    "a module of one's own": Own,
    "a sequence with one within": lambda: nn.Sequential(Own(), nn.Identity()),
    "hooks": hooked,
    "a forward put in its place": patched,
    "no known activation": lambda: nn.Sequential(nn.Linear(4, 3), nn.RReLU(), nn.Linear(3, 1)).double(),
}


@pytest.mark.parametrize("make", BY_CALLS.values(), ids=BY_CALLS)
def test_others_are_called(make):
    critic, x = make(), torch.randn(5, 4).double()
    value = wk.r1_penalty(critic, x)
    assert not is_one_node(value)
    value.backward()
    for part in critic.modules():
        assert getattr(part, "calls", [1]) and part.__dict__.get("seen", [1])


def test_what_changes_between_calls_counts():
    critic, x = digits(nn.Dropout(0.0)), torch.randn(4, 1, 8, 8).double()
    changes = [
        lambda: critic[2].__setattr__("negative_slope", 0.7),
        lambda: critic.__setitem__(3, nn.Conv2d(6, 5, 3, bias=False).double()),
        lambda: critic[0].__setattr__("weight", nn.Parameter(torch.randn(6, 1, 3, 3).double())),
        lambda: critic[0].bias.requires_grad_(False),
        lambda: critic.insert(3, nn.ReLU()),
        lambda: critic.eval(),
    ]
    for change in changes:
        change()
        assert is_one_node(wk.r1_penalty(critic, x))
        assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))


def test_a_forward_that_is_put_in_place_later_is_called():
    critic, x, calls = perceptron(), torch.randn(5, 4).double(), []
    assert is_one_node(wk.r1_penalty(critic, x))
    forward = critic[2].forward
    critic[2].forward = lambda x: calls.append(1) or 2 * forward(x)
    assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))
    assert len(calls) == 2


def test_without_gradients_nothing_is_kept():
    critic, x = digits(), torch.randn(4, 1, 8, 8).double()
    with torch.no_grad():
        value = wk.r1_penalty(critic, x)
        torch.testing.assert_close(value, wk.reference.r1_penalty(critic, x), **EXACT)
    (program,) = known_of(critic, x).general.program.spares
    assert not value.requires_grad and program.x_hat is None
    assert all(getattr(node, name) is None for node, _ in program.steps for name in node.saved)


def test_what_is_refused_for_its_shapes_is_called(monkeypatch):
    critic = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 8)), nn.Linear(8, 1)).double()
    x, calls = torch.randn(4, 4).double(), []
    ours = penalty.input_gradient
    monkeypatch.setattr(penalty, "input_gradient", lambda *args: calls.append(1) or ours(*args))
    for _ in range(2):
        assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))
    assert calls == [1, 1] and known_of(critic, x) is None


def test_another_backend_in_between():
    """The reference's norms have no kernels to make a program of."""
    critic, x = digits(nn.LayerNorm((6, 4, 4))), torch.randn(4, 1, 8, 8).double()
    for backend, expected in (("auto", True), ("reference", False), ("auto", True)):
        with wk.use_backend(backend):
            assert is_one_node(wk.r1_penalty(critic, x)) == expected
            assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))


def tied():
    critic = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 1)).double()
    critic[2].weight = critic[0].weight
    return critic


def twice():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer, nn.ReLU()), nn.Linear(4, 1)).double()


@pytest.mark.parametrize("make", [tied, twice])
def test_weights_that_two_layers_share(make):
    critic, x = make(), torch.randn(5, 4).double()
    assert is_one_node(wk.r1_penalty(critic, x))
    assert_same(results(wk, "r1_penalty", critic, x), results(wk.reference, "r1_penalty", critic, x))


def test_a_critic_that_is_gone_is_forgotten():
    critic, x = perceptron(), torch.randn(5, 4).double()
    wk.r1_penalty(critic, x).backward()
    before = len(_known)
    del critic
    gc.collect()
    assert len(_known) < before


@pytest.mark.parametrize("how", ["the critic", "autocast"])
@pytest.mark.parametrize("behind", [(), (nn.LayerNorm((6, 4, 4)),)], ids=["piecewise linear", "curved"])
def test_bfloat16_is_as_exact_as_eager(how, behind):
    exact, errors, critic = [], [0.0, 0.0], digits(*behind)
    x = torch.randn(64, 1, 8, 8)
    exact = torch.cat(
        [g.flatten() for g in results(wk.reference, "r1_penalty", critic, x.double())[1:] if g is not None]
    )
    for k, of in enumerate((wk, wk.reference)):
        narrow, y = (copy.deepcopy(critic).bfloat16(), x.bfloat16()) if how == "the critic" else (critic.float(), x)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            grads = results(of, "r1_penalty", narrow, y)[1:]
        errors[k] = (torch.cat([g.double().flatten() for g in grads if g is not None]) - exact).norm()
    assert 0 < errors[0] <= 2 * errors[1]


def test_threads_do_not_meet():
    critic, xs = digits(), torch.randn(8, 4, 1, 8, 8).double()
    params = list(critic.parameters())
    expected = [torch.autograd.grad(wk.reference.r1_penalty(critic, x), params, allow_unused=True) for x in xs]
    found = [None] * len(xs)

    def run(k):
        for _ in range(5):
            found[k] = torch.autograd.grad(wk.r1_penalty(critic, xs[k]), params, allow_unused=True)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for actual, wanted in zip(found, expected, strict=True):
        assert_same(actual, wanted)
