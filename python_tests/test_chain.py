"""Layers in a row without gradients are the network's call: values, statistics, nothing of the caller's written."""

import contextlib
import copy

import pytest
import torch
from cases import error, needs_compiled
from families import shapes_of
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk
from wgan_kernels import _chain
from wgan_kernels.training import models

ACTIVATIONS = {
    "leaky": lambda: [nn.LeakyReLU(0.2)],
    "relu": lambda: [nn.ReLU()],
    "in place": lambda: [nn.LeakyReLU(0.3, inplace=True)],
    "tanh": lambda: [nn.Tanh()],
    "nothing": list,
}
NORMS = {
    "of its own": {},
    "cumulative": {"momentum": None},
    "without weights": {"affine": False},
    "without statistics": {"track_running_stats": False},
    "slow": {"momentum": 0.01, "eps": 0.1},
}


PIXELS = [torch.float32, torch.bfloat16]
TYPES = [torch.float32, torch.float32, torch.float64]  # of statistics: ours, eager's, exact ones


def last(t):
    return t.contiguous(memory_format=torch.channels_last)


def generator(norm=(), behind=(), latent=5):
    """Latents → images of 2 channels, its middle in channels-last memory."""
    network = nn.Sequential(
        nn.Linear(latent, 8 * 3 * 5),
        nn.Unflatten(1, (8, 3, 5)),
        nn.ConvTranspose2d(8, 19, 4, 2, 1),
        nn.BatchNorm2d(19, **dict(norm)),
        *behind,
        nn.Sequential(nn.Conv2d(19, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh()),
    ).to(memory_format=torch.channels_last)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return network


class Counting(TorchDispatchMode):
    """How often a batch was normalised in place."""

    times = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.times += func is torch.ops.wgan_kernels.batch_norm_.default
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def though_somebody_looks_on(monkeypatch):
    monkeypatch.setattr(_chain._dispatch, "is_intercepted", lambda: False)


def batches_normalised(network, x):
    """(network(x) by the chain, how often the kernel ran)"""
    with torch.no_grad(), Counting() as counting:
        return _chain.run(network, x), counting.times


@needs_compiled
@pytest.mark.parametrize("behind", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_is_the_networks_call(norm, behind):
    torch.manual_seed(0)
    network = generator(norm, behind())
    eager, exact = copy.deepcopy(network), copy.deepcopy(network).double()
    for _ in range(3):
        latent = torch.randn(4, 5) + 2
        kept = latent.clone()
        samples, times = batches_normalised(network, latent)
        assert times == 2 and torch.equal(latent, kept)
        with torch.no_grad():
            expected = exact(latent.double())
            assert error(samples, expected) <= max(2 * error(eager(latent), expected), 1e-6)
    for ours, spec in zip(network.buffers(), exact.buffers(), strict=True):
        torch.testing.assert_close(ours.to(spec.dtype), spec, rtol=1e-5, atol=1e-6)


@needs_compiled
@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
@pytest.mark.parametrize(("pixels", "channels"), [(2, 1), (3, 70), (33, 5), (513, 64), (1100, 131)])
@pytest.mark.parametrize("dtype", PIXELS)
def test_pixels_of_either_type(dtype, pixels, channels, slope):
    torch.manual_seed(0)
    x, (w, b, mean) = (3 * torch.randn(pixels, channels) + 1).to(dtype), torch.randn(3, channels)
    variance = torch.rand(channels)
    moving, theirs, exactly = [[t.to(kind) for t in (mean.clone(), variance.clone())] for kind in TYPES]
    eager = F.leaky_relu(F.batch_norm(x, *theirs, w, b, True, 0.3, 1e-5), slope)
    exact = F.leaky_relu(F.batch_norm(x.double(), *exactly, w.double(), b.double(), True, 0.3, 1e-5), slope)
    torch.ops.wgan_kernels.batch_norm_(x, w, b, *moving, 0.3, 1e-5, slope)
    assert error(x, exact) <= max(2 * error(eager, exact), 1e-6)
    for ours, spec in zip(moving, exactly, strict=True):
        torch.testing.assert_close(ours.double(), spec, rtol=1e-5, atol=1e-6)


@needs_compiled
def test_bfloat16_is_rounded_once_to_the_nearest_even():
    x = torch.randn(300, 17).bfloat16()
    wide = x.float()
    for pixels in (x, wide):
        torch.ops.wgan_kernels.batch_norm_(pixels, None, None, None, None, 0.1, 1e-5, 0.2)
    assert torch.equal(x, wide.bfloat16())


@needs_compiled
@pytest.mark.parametrize("dtype", PIXELS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 2, 3, 1), (-1, -1, -1, -1)])
def test_what_is_not_finite_spoils_its_channel(value, place, dtype):
    x = last(torch.randn(3, 4, 5, 6, dtype=dtype))
    x[place] = value
    expected = nn.BatchNorm2d(4)(x).detach()
    torch.ops.wgan_kernels.batch_norm_(x.permute(0, 2, 3, 1).view(-1, 4), None, None, None, None, 0.1, 1e-5, 1.0)
    assert torch.equal(x.isfinite(), expected.isfinite())


@needs_compiled
@pytest.mark.parametrize("dtype", PIXELS)
def test_a_mean_far_from_zero_keeps_its_digits(dtype):
    x = last(torch.randn(8, 3, 16, 16) + 1e4).to(dtype)
    exact, eager = nn.BatchNorm2d(3).double()(x.double()).detach(), nn.BatchNorm2d(3)(x).detach()
    torch.ops.wgan_kernels.batch_norm_(x.permute(0, 2, 3, 1).view(-1, 3), None, None, None, None, 0.1, 1e-5, 1.0)
    assert (x - exact).abs().max() <= 2 * (eager - exact).abs().max() + 1e-6


@needs_compiled
@pytest.mark.parametrize("dtype", PIXELS)
def test_the_number_of_threads_does_not_change_a_bit(dtype):
    x, results = torch.randn(5000, 7).to(dtype), []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            y = x.clone()
            torch.ops.wgan_kernels.batch_norm_(y, None, None, None, None, 0.1, 1e-5, 0.2)
            results.append(y)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_the_callers_tensors_are_not_written():
    """A normalisation of the input itself, and one behind what may return it."""
    for first in ([], [nn.Identity()], [nn.ReLU(inplace=False)]):
        network = nn.Sequential(*first, nn.BatchNorm2d(4), nn.LeakyReLU(0.2))
        x = last(torch.randn(3, 4, 5, 6))
        kept = x.clone()
        y, times = batches_normalised(network, x)
        assert times == 0 and torch.equal(x, kept)
        torch.testing.assert_close(y, copy.deepcopy(network)(x).detach())


@pytest.mark.parametrize("of", ["evaluation", "contiguous", "float64"])
def test_others_are_called(of):
    network = generator(behind=[nn.ReLU()])
    if of == "evaluation":
        network.eval()
    if of == "contiguous":
        network.to(memory_format=torch.contiguous_format)
    latent = torch.randn(4, 5, dtype=torch.float64 if of == "float64" else torch.float32)
    network.to(latent.dtype)
    expected = copy.deepcopy(network)
    y, times = batches_normalised(network, latent)
    assert times == 0
    with torch.no_grad():
        torch.testing.assert_close(y, expected(latent))


# Each has the layer's calls seen.
def another_forward(module, seen):
    module.forward = lambda x: saw(seen, type(module).forward(module, x))


def another_class(module, seen):
    kind = type(module)
    module.__class__ = type("Mine", (kind,), {"forward": lambda self, x: saw(seen, kind.forward(self, x))})


def a_hook(module, seen):
    module.register_forward_hook(lambda module, args, y: saw(seen, y))


def a_hook_before(module, seen):
    module.register_forward_pre_hook(lambda module, args: saw(seen, *args))


def compiled(module, seen):
    module._compiled_call_impl = lambda x: saw(seen, module._call_impl(x))


def saw(seen, x):
    seen.append((x, x.clone()))
    return x


CONVOLUTION, NORM, ACTIVATION, CONTAINER = 2, 3, 4, 5


@needs_compiled
@pytest.mark.parametrize("layer", [CONVOLUTION, NORM, ACTIVATION, CONTAINER])
@pytest.mark.parametrize("change", [another_forward, another_class, a_hook, a_hook_before, compiled])
def test_somebody_elses_layer_is_called(change, layer):
    """All else is normalised where it lies: of an activation of its own, the batch before it alone."""
    network = generator(behind=[nn.LeakyReLU(0.2)])
    expected, seen = copy.deepcopy(network), []
    change(network[layer], seen)
    latent = torch.randn(4, 5)
    y, times = batches_normalised(network, latent)
    assert times == (2 if layer == ACTIVATION else 1)
    [(held, kept)] = seen
    assert torch.equal(held, kept)
    with torch.no_grad():
        torch.testing.assert_close(y, expected(latent))
    for ours, theirs in zip(network.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_compiled
@pytest.mark.parametrize("layer", [CONVOLUTION, NORM])
def test_a_parametrized_layer_is_called(layer):
    network = generator()
    parametrize.register_parametrization(network[layer], "weight", nn.Identity())
    expected, latent = copy.deepcopy(network), torch.randn(4, 5)
    y, times = batches_normalised(network, latent)
    assert times == 1
    with torch.no_grad():
        torch.testing.assert_close(y, expected(latent))


class Head(nn.Sequential):
    """A Sequential with an __init__ of its own, and somebody's layer in it."""

    def __init__(self):
        super().__init__()
        self.pixels = nn.Sequential(nn.Conv2d(2, 6, 3), Squared())
        self.last = nn.Conv2d(6, 3, 3)
        self.rest = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.ReLU()))


class Squared(nn.Module):
    def forward(self, x):
        return x.square()


@needs_compiled
def test_rows_within_rows_and_anybodys_layers():
    network = generator()
    network[-1][-1] = Head().to(memory_format=torch.channels_last)
    expected, latent = copy.deepcopy(network), torch.randn(4, 5)
    y, times = batches_normalised(network, latent)
    assert times == 3
    with torch.no_grad():
        torch.testing.assert_close(y, expected(latent))


@needs_compiled
@pytest.mark.parametrize(
    "members",
    [
        {"forward": lambda self, x: 2 * nn.Sequential.forward(self, x)},
        {"__call__": lambda self, x: 2 * nn.Sequential.__call__(self, x)},
        {"__iter__": lambda self: iter([*self._modules.values()][:1])},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_row_with_a_call_of_its_own_is_called(members):
    network = generator()
    network[-1].__class__ = type("Mine", (nn.Sequential,), members)
    expected, latent = copy.deepcopy(network), torch.randn(4, 5)
    y, times = batches_normalised(network, latent)
    assert times == 1
    with torch.no_grad():
        torch.testing.assert_close(y, expected(latent))


def precisely(precision):
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


# Of digits: batches that are normalised behind a convolution, without those behind a projection or in a block.
IN_PLACE = {"compact": 2, "s0": 2, "s3": 2, "dcgan": 1}


@needs_compiled
@pytest.mark.parametrize("precision", [None, "bfloat16"])
@pytest.mark.parametrize("name", models.GENERATORS)
def test_training_generators(name, precision):
    torch.manual_seed(0)
    network = models.generator(name, 5, shapes_of(name)[0])
    eager, exact = copy.deepcopy(network), copy.deepcopy(network).double()
    for _ in range(2):
        latent = torch.randn(6, 5)
        with precisely(precision):
            samples, times = batches_normalised(network, latent)
        assert times == IN_PLACE.get(name, 0) and samples.dtype is torch.float32
        with torch.no_grad():
            expected = exact(latent.double())
            with precisely(precision):
                assert error(samples, expected) <= max(2 * error(eager(latent), expected), 1e-6)
    for ours, theirs, spec in zip(network.buffers(), eager.buffers(), exact.buffers(), strict=True):
        assert error(ours, spec) <= max(2 * error(theirs, spec), 1e-6)


@needs_compiled
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_generators_samples(precision):
    """By the public way: all that GeneratorStep tries gives the same samples, and leaves statistics alike."""
    torch.manual_seed(0)
    network = generator(behind=[nn.LeakyReLU(0.2)])
    spec = copy.deepcopy(network)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 10, 1))
    step = wk.GeneratorStep(network, critic, torch.optim.SGD(network.parameters(), lr=0.1), precision=precision)
    near = {} if precision is None else {"rtol": 0.05, "atol": 0.05}
    for _ in range(3):
        latent = torch.randn(6, 5)
        with torch.no_grad(), precisely(precision):
            torch.testing.assert_close(step.sample(latent), spec(latent), **near)
    for ours, theirs in zip(network.buffers(), spec.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, **near)


@needs_compiled
def test_the_operator():
    x, channels = torch.randn(6, 3), [torch.randn(3) for _ in range(4)]
    for pixels in (x, x.bfloat16()):
        torch.library.opcheck(torch.ops.wgan_kernels.batch_norm_.default, (pixels, *channels, 0.1, 1e-5, 0.2))
    for wrong in (x.double(), x.half(), x.t(), x[:1], x[None]):
        with pytest.raises(RuntimeError, match="batch_norm_: "):
            torch.ops.wgan_kernels.batch_norm_(wrong, None, None, None, None, 0.1, 1e-5, 1.0)
    with pytest.raises(RuntimeError, match="batch_norm_: variance"):
        torch.ops.wgan_kernels.batch_norm_(x, None, None, None, torch.randn(4), 0.1, 1e-5, 1.0)
