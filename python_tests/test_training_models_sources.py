"""wgan_kernels.training.models: each network computes what its source says, written out a second time here.

S0's and S3's, and WGAN-GP's for digits, were compared with Keras' own layers, too, from the same weights: scores of 1.8
agreed to 2e-6 (Keras 3.15, TensorFlow 2.21).
"""

import math

import pytest
import torch
from families import BATCH_NORM, CIFAR, DIGIT, layers, norms, shaken, shapes_of
from torch import nn
from torch.nn import functional as F

from wgan_kernels.training.models import critic, generator
from wgan_kernels.training.models._generator import Projection
from wgan_kernels.training.models._tensorflow import same_convolution


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches of 2 gain nothing from more
    yield
    torch.set_num_threads(threads)


# Where TensorFlow's windows of padding="same", stride 2, begin: -1 is a zero before the image.
@pytest.mark.parametrize(
    ("side", "kernel", "begins"),
    [
        (28, 3, [0, 2, 4]), (14, 3, [0, 2, 4]), (7, 3, [-1, 1, 3]), (28, 4, [-1, 1, 3]), (14, 4, [-1, 1, 3]),
        (28, 5, [-1, 1, 3]), (14, 5, [-1, 1, 3]), (7, 5, [-2, 0, 2]),
    ],
)  # fmt: skip
def test_windows_begin_where_tensorflows_do(side, kernel, begins):
    layer = nn.Sequential(*same_convolution(side, 1, 1, kernel))
    with torch.no_grad():
        layer[-1].weight.zero_()[..., 0, 0] = 1  # the pixel in the corner of each window
        layer[-1].bias.zero_()
        rows = torch.arange(1.0, side + 1)[:, None].expand(side, side)
        for image in (rows, rows.T):
            seen = layer(image[None, None])[0, 0]
            seen = (seen if image is rows else seen.T)[:, -2]
            assert len(seen) == math.ceil(side / 2)
            assert seen[:3].tolist() == [max(begin + 1, 0) for begin in begins]


def same(x, layer, before, behind):
    """TensorFlow's convolution: zeros before and behind, then stride 2."""
    return F.conv2d(F.pad(x, (before, behind, before, behind)), layer.weight, layer.bias, stride=2)


BATCH, SAMPLE = (0, 2, 3), (1, 2, 3)


def normalised(x, layer, dims, eps=1e-5):
    mean, variance = x.mean(dims, keepdim=True), x.var(dims, correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def scores(features, last):
    return F.linear(features.flatten(1), last.weight, last.bias).flatten()


@pytest.mark.parametrize(("name", "dims"), [("s3-batch-norm", BATCH), ("s3-layer-norm", SAMPLE)])
def test_s3s_critic_is_the_posts(name, dims):
    network, x = shaken(critic(name, DIGIT)), torch.randn(3, *DIGIT, dtype=torch.float64)
    first, second, third, last = layers(network)
    before_third, before_last = norms(network)
    y = F.leaky_relu(same(x, first, 0, 1), 0.01)
    y = F.leaky_relu(normalised(same(y, second, 0, 1), before_third, dims, 1e-3), 0.01)
    y = F.leaky_relu(normalised(same(y, third, 1, 1), before_last, dims, 1e-3), 0.01)
    torch.testing.assert_close(network(x), scores(y, last))


def test_s0s_critic_is_the_documents():
    network, x = shaken(critic("s0", DIGIT)), torch.randn(3, *DIGIT, dtype=torch.float64)
    *convolutions, last = layers(network)
    y = x
    for layer, norm in zip(convolutions, norms(network), strict=True):
        y = F.leaky_relu(normalised(same(y, layer, 1, 1), norm, BATCH, 1e-3), 0.2)
    torch.testing.assert_close(network(x), scores(y, last))


def test_s0s_generator_is_the_documents():
    network, z = shaken(generator("s0", 16, DIGIT)), torch.randn(3, 16, dtype=torch.float64)
    project, *doublings, last = layers(network)
    y = F.leaky_relu(project(z), 0.2)
    for layer, norm in zip(doublings, norms(network), strict=True):
        y = F.conv_transpose2d(y, layer.weight, layer.bias, stride=2, padding=1)
        y = F.leaky_relu(normalised(y, norm, BATCH, 1e-3), 0.2)
    torch.testing.assert_close(network(z), torch.tanh(F.conv2d(y, last.weight, last.bias, padding=3)))


@pytest.mark.parametrize(("name", "dims"), [("dcgan", BATCH), ("dcgan-layer-norm", SAMPLE), ("dcgan-plain", None)])
def test_the_original_wgans_critics(name, dims):
    network, x = shaken(critic(name, CIFAR)), torch.randn(3, *CIFAR, dtype=torch.float64)
    first, *others, last = layers(network)
    y = F.leaky_relu(same(x, first, 1, 1), 0.2)
    for i, layer in enumerate(others):
        y = same(y, layer, 1, 1)
        y = F.leaky_relu(y if dims is None else normalised(y, norms(network)[i], dims), 0.2)
    torch.testing.assert_close(network(x), scores(y, last))


@pytest.mark.parametrize("name", ["dcgan", "dcgan-plain"])
def test_the_original_wgans_generators(name):
    network, z = shaken(generator(name, 16, CIFAR)), torch.randn(3, 16, dtype=torch.float64)
    project, *doublings = layers(network)
    y = project(z)
    for i, layer in enumerate(doublings):
        y = F.relu(normalised(y, norms(network)[i], BATCH) if name == "dcgan" else y)
        y = F.conv_transpose2d(y, layer.weight, stride=2, padding=1)
    torch.testing.assert_close(network(z), torch.tanh(y))


@pytest.mark.parametrize("name", ["mlp", "toy-mlp"])
def test_perceptrons(name):
    shape = shapes_of(name)[0]
    for network, x in (
        (critic(name, shape), torch.randn(3, *shape)),
        (generator(name, 16, shape), torch.randn(3, 16)),
    ):
        *inner, last = layers(network)
        y = x.flatten(1)
        for layer in inner:
            y = F.relu(layer(y))
        y = last(y).reshape(network(x).shape)
        is_image = y.dim() == 4
        torch.testing.assert_close(network(x), torch.tanh(y) if is_image else y)


def test_wgan_gps_critic_for_digits_is_its_authors():
    network, x = shaken(critic("wgan-gp-mnist", DIGIT)), torch.randn(3, *DIGIT, dtype=torch.float64)
    first, second, third, last = layers(network)
    y = F.leaky_relu(same(x, first, 1, 2), 0.2)
    y = F.leaky_relu(same(y, second, 1, 2), 0.2)
    y = F.leaky_relu(same(y, third, 2, 2), 0.2)
    torch.testing.assert_close(network(x), scores(y, last))


def test_wgan_gps_generator_for_digits_is_its_authors():
    network, z = shaken(generator("wgan-gp-mnist", 16, DIGIT)), torch.randn(3, 16, dtype=torch.float64)
    project, *deconvolutions = layers(network)
    y = F.relu(project(z))
    for layer, kept in zip(deconvolutions, (7, 14, 28), strict=True):
        # The transpose of one zero before and two behind: the whole result from its second pixel on.
        y = F.conv_transpose2d(y, layer.weight, layer.bias, stride=2)[..., 1 : 1 + kept, 1 : 1 + kept]
        y = torch.tanh(y) if kept == 28 else F.relu(y)
    torch.testing.assert_close(network(z), y)


def larger(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def smaller(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def test_wgan_gps_residual_generator_is_its_authors():
    """In their order: the shortcut's convolution behind the upsampling."""
    network, z = shaken(generator("resnet", 16, DIGIT)), torch.randn(2, 16, dtype=torch.float64)
    project, *blocks, last = layers(network)
    *within, behind = norms(network)
    y = project(z)
    for i in range(2):
        shortcut, first, second = blocks[3 * i : 3 * i + 3]
        inner = first(larger(F.relu(normalised(y, within[2 * i], BATCH))))
        inner = second(F.relu(normalised(inner, within[2 * i + 1], BATCH)))
        y = shortcut(larger(y)) + inner
    torch.testing.assert_close(network(z), torch.tanh(last(F.relu(normalised(y, behind, BATCH)))))


def test_wgan_gps_residual_critic_is_its_authors():
    """In their order: the second block's shortcut averages behind its convolution, the first's before."""
    network, x = shaken(critic("resnet", CIFAR)), torch.randn(2, *CIFAR, dtype=torch.float64)
    shortcut, first, second, *blocks, last = layers(network)
    y = shortcut(smaller(x)) + smaller(second(F.relu(first(x))))
    shortcut, first, second, *blocks = blocks
    y = smaller(shortcut(y)) + smaller(second(F.relu(first(F.relu(y)))))
    for first, second in (blocks[:2], blocks[2:]):
        y = y + second(F.relu(first(F.relu(y))))
    torch.testing.assert_close(network(x), scores(F.relu(y).mean((2, 3)), last))


def test_s0s_generator_keeps_running_statistics_as_keras_does():
    kept = [(m.eps, m.momentum, m.track_running_stats) for m in norms(generator("s0", 50, DIGIT))]
    assert kept == [(1e-3, 0.01, True)] * 2


@pytest.mark.parametrize("name", BATCH_NORM)
def test_critics_keep_no_running_statistics(name):
    """Which a look at them would change, and which ranks would have to share."""
    assert not list(critic(name, shapes_of(name)[0]).buffers())


def test_a_projection_is_a_transposed_convolution_of_one_pixel_in_channels_last_memory():
    projection, z = Projection(5, 6, 3), torch.randn(2, 5)
    kernel = projection.weight.T.reshape(5, 3, 3, 6).permute(0, 3, 1, 2)
    shift = projection.bias.reshape(3, 3, 6).permute(2, 0, 1)
    images = projection(z)
    torch.testing.assert_close(images, F.conv_transpose2d(z[:, :, None, None], kernel) + shift)
    assert images.is_contiguous(memory_format=torch.channels_last)
