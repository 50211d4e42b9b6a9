"""wgan_kernels.training.models: networks are those of their sources, and take the samples that they are for."""

import itertools
import math

import pytest
import torch
from families import BATCH_NORM, CIFAR, DIGIT, FACE, POINT, layers, norms, shaken, shapes_of

import wgan_kernels as wk
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.models import CRITICS, GENERATORS, critic, generator

PENALISED = [name for name in CRITICS if name not in BATCH_NORM]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches of 2 gain nothing from more
    yield
    torch.set_num_threads(threads)


def every(names):
    return [(name, shape) for name in names for shape in shapes_of(name)]


# --- shapes and ranges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape"), every(CRITICS))
def test_a_critic_gives_each_sample_one_score(name, shape):
    with torch.device("meta"):
        assert critic(name, shape)(torch.zeros(3, *shape)).shape == (3,)


@pytest.mark.parametrize(("name", "shape"), every(GENERATORS))
def test_a_generator_gives_each_latent_one_sample(name, shape):
    with torch.device("meta"):
        network = generator(name, 5, shape)
        assert network.latent == 5
        assert network(torch.zeros(3, 5)).shape == (3, *shape)


@pytest.mark.parametrize("name", GENERATORS)
def test_images_are_within_one_and_points_are_not(name):
    network = generator(name, 8, shapes_of(name)[0])
    samples = network(1e4 * torch.randn(4, 8))  # what BatchNorm takes back
    if name == "toy-mlp":
        assert samples.abs().max() > 100
    else:
        assert 0 < samples.abs().max() <= 1


@pytest.mark.parametrize("name", GENERATORS)
def test_samples_are_as_wide_as_their_latents_under_autocast(name):
    network = generator(name, 8, shapes_of(name)[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(2, 8)).dtype is torch.float32


@pytest.mark.parametrize("name", CRITICS)
def test_scores_are_each_samples_own_but_for_batch_norm(name):
    shape = shapes_of(name)[0]
    network, samples = critic(name, shape).double(), torch.randn(3, *shape, dtype=torch.float64)
    together, alone = network(samples), network(samples[:2])
    assert torch.allclose(together[:2], alone, rtol=1e-9, atol=1e-12) is (name not in BATCH_NORM)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: critic("s0", CIFAR),
            "--critic s0: is for images of 1×28×28, and these are images of 3×32×32; choose dcgan or dcgan-plain or "
            "dcgan-layer-norm or mlp or resnet",
        ),
        (
            lambda: generator("resnet", 8, (3, 48, 48)),
            "--generator resnet: is for square images of 28 or 32 or 64 or 128 pixels a side, and these are images of "
            "3×48×48; choose mlp",
        ),
        (
            lambda: critic("mlp", POINT),
            "--critic mlp: is for images, and these are points of 2 numbers; choose toy-mlp",
        ),
        (
            lambda: generator("toy-mlp", 2, FACE),
            "--generator toy-mlp: is for points, and these are images of 3×64×64; choose dcgan or dcgan-plain or mlp "
            "or resnet",
        ),
        (
            lambda: generator("s3-layer-norm", 8, DIGIT),
            f"--generator s3-layer-norm: there is none of this name; choose one of {', '.join(GENERATORS)}",
        ),
        (lambda: critic("vae", DIGIT), f"--critic vae: there is none of this name; choose one of {', '.join(CRITICS)}"),
    ],
)
def test_other_samples_and_names_are_refused(build, message):
    with pytest.raises(UsageError) as refusal:
        build()
    assert str(refusal.value) == message


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
@pytest.mark.parametrize("shape", [(3, 32, 64), (3, 4, 4), (3, 256, 256), (3, 32), (3, 32, 32, 32)])
def test_squares_of_known_sides_only(name, shape):
    with pytest.raises(UsageError):
        critic(name, shape)
    with pytest.raises(UsageError):
        generator(name, 8, shape)


# --- sizes, by the sources' tables -------------------------------------------------------------------------------


def conv(kernel, channels, wider, bias=True):
    return kernel**2 * channels * wider + bias * wider


def dense(inputs, outputs, bias=True):
    return inputs * outputs + bias * outputs


def affine(channels):
    return 2 * channels


def hidden(inputs, outputs):
    return dense(inputs, 512) + 2 * dense(512, 512) + dense(512, outputs)


def bare(kernel, *widths):
    return sum(conv(kernel, a, b, bias=False) for a, b in itertools.pairwise(widths))


S3 = conv(3, 1, 32) + conv(3, 32, 64) + conv(3, 64, 128) + affine(64) + affine(128) + dense(4 * 4 * 128, 1)
S0_BODY = 2 * (conv(4, 128, 128) + affine(128)) + conv(7, 128, 1)
RESIDUAL = 2 * conv(3, 128, 128)
CRITIC_SIZES = {
    ("compact", DIGIT): conv(3, 4, 32) + conv(4, 32, 64) + conv(3, 64, 128) + dense(4 * 4 * 128, 1, bias=False),
    ("compact-batch-norm", DIGIT): conv(3, 4, 32) + bare(4, 32, 64) + bare(3, 64, 128) + affine(64 + 128) + 4 * 4 * 128,
    ("s0", DIGIT): conv(4, 1, 64) + conv(4, 64, 64) + 2 * affine(64) + dense(7 * 7 * 64, 1),
    ("dcgan", FACE): bare(4, 3, 64, 128, 256, 512, 1) + affine(128 + 256 + 512),
    ("dcgan", CIFAR): bare(4, 3, 64, 128, 256, 1) + affine(128 + 256),
    ("dcgan", DIGIT): bare(4, 1, 64, 128) + affine(128) + 7 * 7 * 128,
    ("dcgan-plain", FACE): bare(4, 3, 64, 128, 256, 512, 1),
    ("dcgan-layer-norm", FACE): bare(4, 3, 64, 128, 256, 512, 1) + affine(128 + 256 + 512),
    ("dcgan-layer-norm", (1, 128, 128)): bare(4, 1, 64, 128, 256, 512, 1024, 1) + affine(128 + 256 + 512 + 1024),
    ("mlp", CIFAR): hidden(3 * 32 * 32, 1),
    ("s3-batch-norm", DIGIT): S3,
    ("s3-layer-norm", DIGIT): S3,
    ("wgan-gp-mnist", DIGIT): conv(5, 1, 64) + conv(5, 64, 128) + conv(5, 128, 256) + dense(4 * 4 * 4 * 64, 1),
    # Four blocks; a shortcut convolution where the size or the channels change.
    ("resnet", CIFAR): conv(3, 3, 128) + conv(3, 128, 128) + conv(1, 3, 128)
    + RESIDUAL + conv(1, 128, 128) + 2 * RESIDUAL + dense(128, 1),
    ("toy-mlp", POINT): hidden(2, 1),
}  # fmt: skip
GENERATOR_SIZES = {
    ("compact", 32, DIGIT): 32 * 6272 + bare(4, 128, 64) + bare(3, 64, 64) + affine(128 + 64 + 64) + conv(3, 64, 4),
    ("s0", 50, DIGIT): dense(50, 128 * 7 * 7) + S0_BODY,
    ("s3", 128, DIGIT): dense(128, 128 * 7 * 7) + S0_BODY,
    ("dcgan", 100, FACE): bare(4, 100, 512, 256, 128, 64, 3) + affine(512 + 256 + 128 + 64),
    ("dcgan", 100, CIFAR): bare(4, 100, 256, 128, 64, 3) + affine(256 + 128 + 64),
    ("dcgan", 100, DIGIT): 100 * 7 * 7 * 128 + bare(4, 128, 64, 1) + affine(128 + 64),
    ("dcgan-plain", 100, FACE): bare(4, 100, 64, 64, 64, 64, 3),
    ("mlp", 100, CIFAR): hidden(100, 3 * 32 * 32),
    ("wgan-gp-mnist", 128, DIGIT): dense(128, 4 * 4 * 4 * 64) + conv(5, 256, 128) + conv(5, 128, 64) + conv(5, 64, 1),
    ("resnet", 128, CIFAR): dense(128, 4 * 4 * 128) + 3 * (RESIDUAL + conv(1, 128, 128) + 2 * affine(128))
    + affine(128) + conv(3, 128, 3),
    ("toy-mlp", 2, POINT): hidden(2, 2),
}  # fmt: skip


def size(network):
    return sum(param.numel() for param in network.parameters())


@pytest.mark.parametrize(("key", "expected"), CRITIC_SIZES.items())
def test_sizes_of_critics(key, expected):
    with torch.device("meta"):
        assert size(critic(*key)) == expected


@pytest.mark.parametrize(("key", "expected"), GENERATOR_SIZES.items())
def test_sizes_of_generators(key, expected):
    with torch.device("meta"):
        assert size(generator(*key)) == expected


def test_every_family_has_its_size_checked():
    assert {name for name, _ in CRITIC_SIZES} == set(CRITICS)
    assert {name for name, *_ in GENERATOR_SIZES} == set(GENERATORS)


def test_the_plain_generator_has_a_bit_more_than_an_order_of_magnitude_fewer_weights():
    """As Arjovsky et al. 2017 say of theirs, section 4.3."""
    sizes = [GENERATOR_SIZES[name, 100, FACE] for name in ("dcgan", "dcgan-plain")]
    assert 10 < sizes[0] / sizes[1] < 13


def test_names_of_the_compact_networks_weights():
    """Those of runs that were begun before there were others."""
    names = list(critic("compact", DIGIT).state_dict())
    assert names == [f"layers.{i}.{kind}" for i in (1, 3, 5) for kind in ("weight", "bias")] + ["layers.8.weight"]
    names = {name.rpartition(".")[0] for name in generator("compact", 8, DIGIT).state_dict()}
    assert names == {"project", *(f"body.{i}" for i in (0, 2, 3, 5, 6, 8))}


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != "compact"])
def test_names_of_the_other_generators_weights(name):
    network = generator(name, 8, shapes_of(name)[0])
    assert all(key.startswith("layers.") for key in network.state_dict())
    assert network.layers.state_dict().keys() == {key.removeprefix("layers.") for key in network.state_dict()}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_copy_of_a_generator_is_one(name):
    network = generator(name, 8, shapes_of(name)[0])
    average = torch.optim.swa_utils.AveragedModel(network, use_buffers=True)
    average.update_parameters(network)
    latent = torch.randn(2, 8)
    assert average.module.latent == 8
    assert torch.equal(average(latent), network(latent))


# --- initial weights ---------------------------------------------------------------------------------------------


def uniform(inputs, outputs, factor=2.0):
    """Standard deviation of a uniform distribution by its fans."""
    return "uniform", math.sqrt(factor / (inputs + outputs))


NORMAL = "normal", 0.02
SQUARE = uniform(1152, 1152, 4.0)  # of 3×3 convolutions from 128 to 128 channels
POINTWISE = uniform(128, 128)
INITIAL = {
    "critic s0": [NORMAL, NORMAL, uniform(3136, 1)],
    "generator s0": [NORMAL] * 4,
    "critic s3-batch-norm": [uniform(9, 288), uniform(288, 576), uniform(576, 1152), uniform(2048, 1)],
    "critic s3-layer-norm": [uniform(9, 288), uniform(288, 576), uniform(576, 1152), uniform(2048, 1)],
    "critic dcgan": [NORMAL] * 3,
    "critic dcgan-plain": [NORMAL] * 3,
    "critic dcgan-layer-norm": [NORMAL] * 3,
    "generator dcgan": [NORMAL] * 3,
    "generator dcgan-plain": [NORMAL] * 3,
    "critic wgan-gp-mnist": [
        uniform(25, 64 * 25 / 4, 4.0), uniform(64 * 25, 128 * 25 / 4, 4.0), uniform(128 * 25, 256 * 25 / 4, 4.0),
        uniform(4096, 1),
    ],
    "generator wgan-gp-mnist": [
        uniform(128, 4096),
        uniform(256 * 25 / 4, 128 * 25, 4.0), uniform(128 * 25 / 4, 64 * 25, 4.0), uniform(64 * 25 / 4, 25, 4.0),
    ],
    # In the order of the modules: a block's shortcut is before its branch.
    "critic resnet": [
        uniform(1, 128), uniform(9, 1152, 4.0), SQUARE, POINTWISE, SQUARE, SQUARE, SQUARE, SQUARE, SQUARE, SQUARE,
        uniform(128, 1),
    ],
    "generator resnet": [uniform(64, 128 * 49), *[POINTWISE, SQUARE, SQUARE] * 2, uniform(1152, 9)],
    "critic toy-mlp": [uniform(2, 0), uniform(512, 0), uniform(512, 0), uniform(512, 1)],
    "generator toy-mlp": [uniform(64, 0), uniform(512, 0), uniform(512, 0), uniform(512, 2)],
}  # fmt: skip


@pytest.mark.parametrize(("which", "expected"), INITIAL.items())
def test_initial_weights(which, expected):
    kind, name = which.split()
    shape = shapes_of(name)[0]
    network = critic(name, shape) if kind == "critic" else generator(name, 64 if "wgan" not in name else 128, shape)
    for layer, (distribution, std) in zip(layers(network), expected, strict=True):
        weight, count = layer.weight.detach(), layer.weight.numel()
        # Five standard errors of a mean and, at kurtosis 3, of a standard deviation.
        assert abs(weight.mean()) < 5 * std / math.sqrt(count)
        assert abs(weight.std() / std - 1) < 5 / math.sqrt(2 * count)
        furthest = weight.abs().max().item() / std
        assert (furthest < math.sqrt(3) * (1 + 1e-6)) is (distribution == "uniform")
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("build", [lambda: critic("dcgan", FACE), lambda: generator("dcgan", 8, FACE)])
def test_dcgans_scales_begin_around_one(build):
    network = build()
    scales = torch.cat([m.weight.detach() for m in norms(network)])
    assert len(scales) >= 128 + 256 + 512
    assert abs(scales.mean() - 1) < 5 * 0.02 / math.sqrt(len(scales))
    assert abs(scales.std() / 0.02 - 1) < 5 / math.sqrt(2 * len(scales))
    assert not any(m.bias.any() for m in norms(network))


# --- the penalty -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PENALISED)
def test_the_penaltys_gradient_is_the_references(name, however_small):
    shape = shapes_of(name)[0]
    network = shaken(critic(name, shape))
    real, fake = torch.randn(2, 2, *shape, dtype=torch.float64).unbind()
    eps = torch.rand(2, dtype=torch.float64)
    params = list(network.parameters())
    # The last layer's bias moves no gradient: a penalty may leave it out, or give it zeros.
    expected = torch.autograd.grad(
        wk.reference.gradient_penalty(network, real, fake, eps=eps), params, materialize_grads=True
    )
    actual = torch.autograd.grad(wk.gradient_penalty(network, real, fake, eps=eps), params, materialize_grads=True)
    assert any(grad.any() for grad in expected)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * b.abs().max().item())


@pytest.mark.parametrize("name", PENALISED)
def test_a_step_runs_critics_without_batch_norm_as_one_program(name):
    """The gradients are compared, too: only a step tells whether a program can be run."""
    shape = shapes_of(name)[0]
    network = shaken(critic(name, shape))
    step = wk.CriticStep(network, torch.optim.SGD(network.parameters(), 0.0), tune=False, generator=torch.Generator())
    spec = wk.reference.CriticStep(network, step.optimizer, generator=torch.Generator())
    real, fake = torch.randn(2, 2, *shape, dtype=torch.float64).unbind()
    gradients = []
    for one in (step, spec):
        one.generator.manual_seed(1)
        one(real, fake)
        gradients.append([param.grad.clone() for param in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * b.abs().max().item())
    assert step.plan.startswith("value")


@pytest.mark.parametrize("name", BATCH_NORM)
def test_a_step_says_why_others_are_none(name):
    network = critic(name, shapes_of(name)[0])
    plan = wk.CriticStep(network, torch.optim.SGD(network.parameters(), 0.0)).plan
    assert "(BatchNorm2d) normalises over the batch" in plan
