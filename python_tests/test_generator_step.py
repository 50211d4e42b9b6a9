"""GeneratorStep: however the convolutions are run, the update is that of the plain loop."""

import contextlib
import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import wgan_kernels as wk
from wgan_kernels._tuning import Convolutions, fastest, undisturbed


def linear(*widths):
    layers = [layer for wide, wider in pairwise(widths) for layer in (nn.Linear(wide, wider), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def generators():
    torch.manual_seed(0)
    generator, critic = linear(3, 8, 7), linear(7, 9, 1)
    return generator, critic


def of_images(dropout=0.0):
    """A generator and a critic of images; batch normalisation and dropout have something that trials could disturb."""
    torch.manual_seed(1)
    generator = nn.Sequential(
        nn.Linear(3, 6 * 9),
        nn.Unflatten(1, (6, 3, 3)),
        nn.ConvTranspose2d(6, 5, 4, 2, 1),
        nn.BatchNorm2d(5),
        nn.LeakyReLU(0.2),
        nn.Dropout(dropout),
        nn.Conv2d(5, 2, 3, padding="same"),
        nn.ConvTranspose2d(2, 2, 3, 1, 1),
        nn.Conv2d(2, 1, 3, padding=1),
        nn.Tanh(),
    )
    critic = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 1, 3, padding=1), nn.Flatten())
    return generator.double(), critic.double()


@contextlib.contextmanager
def always(way, monkeypatch):
    """What is tuned within takes the way of this name, after all were tried."""
    tried = []

    def choose(ways):
        for run in (*ways.values(), *ways.values()):
            run()
        tried.append(list(ways))
        return way

    with monkeypatch.context() as patch:
        patch.setattr("wgan_kernels.generator_step.fastest", choose)
        yield tried


def test_generator_step_is_the_plain_one():
    (generator, critic), (twin, other) = generators(), generators()
    critic[0].weight.requires_grad_(False)
    ema = torch.optim.swa_utils.AveragedModel(generator)
    step = wk.GeneratorStep(generator, critic, wk.optim.Adam(generator.parameters(), lr=0.1), ema=ema)
    spec = wk.reference.GeneratorStep(twin, other, wk.reference.optim.Adam(twin.parameters(), lr=0.1))
    latent = torch.randn(5, 3)
    for _ in range(2):
        torch.testing.assert_close(step(latent), spec(latent))
    for param, expected in zip(generator.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(param, expected)
    assert all(param.grad is None for param in critic.parameters())
    assert [param.requires_grad for param in critic.parameters()] == [False, True, True, True]
    assert ema.n_averaged.item() == 2
    assert step.sample(latent).shape == (5, 7) and not step.sample(latent).requires_grad


WAYS = list(wk.GeneratorStep(*generators(), None)._ways)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_update(way, monkeypatch):
    """The trials of the first batch included, of which buffers and random numbers know nothing."""
    generator, critic = of_images(0.0 if "channels-last" in way else 0.3)  # masks are drawn in the order of memory
    twin, other = copy.deepcopy(generator), copy.deepcopy(critic)
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1))
    spec = wk.reference.GeneratorStep(twin, other, torch.optim.SGD(twin.parameters(), lr=0.1))
    layout = [param.stride() for param in generator.parameters()]
    latent = torch.randn(4, 3).double()
    with always(way, monkeypatch) as tried:
        for seed in range(2):
            results = []
            for one in (step, spec):
                torch.manual_seed(seed)
                results.append((one(latent), one.sample(latent)))
            torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)
    assert tried == [WAYS, WAYS] and step.tuned == {"update": way, "sample": way}
    for module, expected in ((generator, twin), (critic, other)):
        torch.testing.assert_close(module.state_dict(), expected.state_dict(), rtol=1e-9, atol=1e-11)
    assert [param.stride() for param in generator.parameters()] == layout


def test_without_tuning_nothing_is_tried(monkeypatch):
    generator, critic = of_images()
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1), tune=False)
    with always(WAYS[-1], monkeypatch) as tried:
        step(torch.randn(4, 3).double())
        step.sample(torch.randn(4, 3).double())
    assert not tried and not step.tuned


class Viewing(nn.Module):
    """As tutorials have it: ``view`` where ``reshape`` would do."""

    def __init__(self):
        super().__init__()
        self.features, self.scores = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 6 * 6, 1)

    def forward(self, x):
        return self.scores(torch.relu(self.features(x)).view(x.size(0), -1))


@pytest.mark.parametrize("tune", [True, False])
def test_a_critic_may_view(tune):
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Unflatten(1, (5, 3, 3)), nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.Tanh()).double()
    critic, twin = Viewing().double(), copy.deepcopy(generator)
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1), tune=tune)
    spec = wk.reference.GeneratorStep(twin, critic, torch.optim.SGD(twin.parameters(), lr=0.1))
    latent = torch.randn(4, 45).double()
    torch.testing.assert_close(step(latent), spec(latent), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(generator.state_dict(), twin.state_dict(), rtol=1e-9, atol=1e-11)
    samples = step.sample(latent)
    torch.testing.assert_close(samples.view(4, -1), spec.sample(latent).flatten(1), rtol=1e-9, atol=1e-11)


def test_a_way_that_fails_is_not_taken():
    """Here the memory of channels-last features, of which no view can be had."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Unflatten(1, (5, 3, 3)), nn.ConvTranspose2d(5, 3, 4, 2, 1)).double()
    step = wk.GeneratorStep(generator, Viewing().double(), torch.optim.SGD(generator.parameters(), lr=0.1))
    step(torch.randn(4, 45).double())
    assert "channels-last" not in step.tuned["update"]


def test_a_generator_may_write_through_a_view():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.ConvTranspose2d(5, 3, 4, 2, 1)

        def forward(self, z):
            y = self.conv(z.view(-1, 5, 3, 3))
            y.view(y.size(0), -1).mul_(0.5)
            return y.view(size=y.shape)

    torch.manual_seed(0)
    generator, critic = Writing().double(), Viewing().double()
    twin = copy.deepcopy(generator)
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1))
    spec = wk.reference.GeneratorStep(twin, critic, torch.optim.SGD(twin.parameters(), lr=0.1))
    latent = torch.randn(4, 45).double()
    torch.testing.assert_close(step(latent), spec(latent), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(step.sample(latent), spec.sample(latent), rtol=1e-9, atol=1e-11)


def test_a_critic_that_is_no_module_receives_nothing():
    generator, critic = generators()
    step = wk.GeneratorStep(generator, lambda x: critic(x), torch.optim.SGD(generator.parameters(), lr=0.1))
    step(torch.randn(5, 3))
    assert all(param.grad is None for param in critic.parameters())
    assert all(param.grad is not None for param in generator.parameters())


def test_a_generator_may_return_what_it_likes_to_its_own_critic():
    generator, critic = generators()
    both = lambda z: (generator(z), 2)  # noqa: E731
    step = wk.GeneratorStep(both, lambda pair: critic(pair[0]), torch.optim.SGD(generator.parameters(), lr=0.1))
    step(torch.randn(5, 3))
    samples, two = step.sample(torch.randn(5, 3))
    assert samples.shape == (5, 7) and two == 2


@pytest.mark.parametrize(
    ("critic", "kind", "match"),
    [
        (lambda x: (x, x), TypeError, "critic: expected it to return a tensor of scores, got tuple"),
        (lambda x: x.detach(), RuntimeError, "critic: its scores do not depend on the generator"),
    ],
)
def test_critics_that_cannot_be_trained_against(critic, kind, match):
    generator, _ = generators()
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1))
    with pytest.raises(kind, match=match):
        step(torch.randn(5, 3))
    assert all(param.grad is None for param in generator.parameters())


def test_no_latent_at_all():
    generator, critic = generators()
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1))
    for call in (step, step.sample):
        with pytest.raises(ValueError, match="latent: expected at least one sample"):
            call(torch.randn(0, 3))


def test_a_compiled_generator_gives_the_same_update(monkeypatch):
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.ConvTranspose2d(3, 2, 4), nn.Tanh()).double()
    critic = nn.Sequential(nn.Flatten(), nn.Linear(32, 1)).double()
    twin = copy.deepcopy(generator)
    step = wk.GeneratorStep(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1), tune="compile")
    spec = wk.reference.GeneratorStep(twin, critic, torch.optim.SGD(twin.parameters(), lr=0.1))
    ways = list(step._ways)
    assert ways == [*WAYS, *(f"{way}, compiled" for way in WAYS)]
    latent = torch.randn(4, 3).double()
    with always(ways[-1], monkeypatch) as tried:
        torch.testing.assert_close(step(latent), spec(latent), rtol=1e-9, atol=1e-11)
    assert tried == [ways]
    torch.testing.assert_close(generator.state_dict(), twin.state_dict(), rtol=1e-9, atol=1e-11)


X, W = torch.randn(2, 3, 6, 5), torch.randn(2, 3, 3, 2)
CALLS = {
    "settings by name": lambda: F.conv2d(X, W, stride=1, padding=(1, 1), dilation=1),
    "bias by name": lambda: F.conv2d(X, W, bias=torch.ones(2)),
    "same": lambda: F.conv2d(X, W, None, 1, "same"),
    "valid": lambda: F.conv2d(X, W, None, 1, "valid"),
    "transposed": lambda: F.conv_transpose2d(X, W.transpose(0, 1), torch.ones(2), 2, 1, 1),
    "all by name": lambda: F.conv2d(input=X, weight=W),
    "one sample": lambda: F.conv2d(X[0], W),
    "no sample": lambda: F.conv2d(X[:0], W),
    "more padding than kernel": lambda: F.conv2d(X, W, padding=4),
    "half": lambda: F.conv2d(X.bfloat16(), W.bfloat16()),
    "grouped": lambda: F.conv2d(X, W[:, :1].repeat(3, 1, 1, 1), groups=3),
    "one dimension": lambda: F.conv1d(X[0].transpose(0, 1), W[..., 0]),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_in_any_form(call, channels_last):
    expected = call()
    with Convolutions(channels_last):
        torch.testing.assert_close(call(), expected)


def test_autocast_stays_what_it_is():
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.conv2d(X, W, padding=1)
        with Convolutions(True):
            actual = F.conv2d(X, W, padding=1)
    torch.testing.assert_close(actual, expected)
    assert actual.dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        ({"a": [1, 3, 4], "b": [9, 4, 2], "c": [0, 4, 4]}, "b"),  # the first call is slow for reasons of its own
        ({"a": [1, 3, 2], "b": [1, 3, 1.95], "c": [1, 9, 9]}, "a"),  # not evidently slower than b
        ({"a": [1, 3, 2], "b": [1, 1.85, 9], "c": [1, 1.8, 9]}, "c"),
    ],
)
def test_the_fastest(monkeypatch, takes, expected):
    now, remaining = [0.0], {name: iter(seconds) for name, seconds in takes.items()}
    monkeypatch.setattr("wgan_kernels._tuning.time.perf_counter", lambda: now[0])

    def run(name):
        now[0] += next(remaining[name])

    assert fastest({name: partial(run, name) for name in takes}) == expected


def test_undisturbed_also_when_it_fails():
    layer = nn.BatchNorm1d(2)
    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError), undisturbed(layer):
        layer(torch.rand(4, 2))
        raise ZeroDivisionError
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(layer.running_mean, torch.zeros(2)) and layer.num_batches_tracked == 0


def test_a_generator_step_that_fails_leaves_the_critic_trainable():
    generator, critic = generators()
    step = wk.GeneratorStep(generator, critic, wk.optim.Adam(generator.parameters()))
    with pytest.raises(RuntimeError):
        step(torch.randn(5, 4))
    assert all(param.requires_grad for param in critic.parameters())


def test_bfloat16_is_as_exact_as_eager():
    generator, critic = (net.float().eval() for net in of_images())
    latent, errors = torch.randn(4, 3), []
    exact = copy.deepcopy(generator).double()(latent.double())
    for kind, precision in ((wk.GeneratorStep, "bfloat16"), (wk.reference.GeneratorStep, None)):
        step = kind(generator, critic, torch.optim.SGD(generator.parameters(), lr=0.1), precision=precision)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is None):
            errors.append((step.sample(latent) - exact).norm())
        assert step(latent)["loss"].dtype is torch.float32
    assert 1e-5 < errors[0] <= 2 * errors[1]


@pytest.mark.parametrize("call", ["__call__", "sample"])
def test_bad_arguments(call):
    generator, critic = generators()
    with pytest.raises(ValueError, match="tune is 'max': expected one of True, False, 'compile'"):
        wk.GeneratorStep(generator, critic, None, tune="max")
    with pytest.raises(ValueError, match="precision is 'half'"):
        wk.GeneratorStep(generator, critic, None, precision="half")
    step = getattr(wk.GeneratorStep(generator, critic, None), call)
    with pytest.raises(TypeError, match="latent: expected float64"):
        step(torch.zeros(5, 3).long())
    with pytest.raises(ValueError, match="latent: expected a batch"):
        step(torch.zeros(()))
