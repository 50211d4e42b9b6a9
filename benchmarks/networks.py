"""The networks of the seeds and of the papers: as PyTorch modules, and as data for a process with another framework."""

import copy
from itertools import pairwise
from math import prod

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def convolutions(*widths, kernel, slope):
    """Widths from the image's channels on, each halving the side: the body of a piecewise linear critic."""
    return [
        layer
        for channels, wider in pairwise(widths)
        for layer in (nn.Conv2d(channels, wider, kernel, 2, 1), nn.LeakyReLU(slope))
    ]


def s0_critic():
    """Of the Keras notebook: two convolutions of 64 channels."""
    return nn.Sequential(*convolutions(1, 64, 64, kernel=4, slope=0.2), nn.Flatten(), nn.Linear(64 * 7 * 7, 1))


def s0_batch_norm_critic():
    """The same as the notebook has it, BatchNorm after both convolutions."""
    layers = list(s0_critic())
    layers.insert(1, nn.BatchNorm2d(64))
    layers.insert(4, nn.BatchNorm2d(64))
    return nn.Sequential(*layers)


def s3_critic():
    """Of the TensorFlow post: three convolutions of 32, 64 and 128 channels."""
    return nn.Sequential(*convolutions(1, 32, 64, 128, kernel=3, slope=0.01), nn.Flatten(), nn.Linear(128 * 4 * 4, 1))


def s3_batch_norm_critic():
    """Of the post, as it is for clipped weights: BatchNorm after the second and third convolution."""
    layers = list(s3_critic())
    layers.insert(3, nn.BatchNorm2d(64))
    layers.insert(6, nn.BatchNorm2d(128))
    return nn.Sequential(*layers)


def s3_layer_norm_critic():
    """The same as the post has it for the penalty: LayerNorm after the second and third convolution."""
    layers = list(s3_critic())
    layers.insert(3, nn.LayerNorm([64, 7, 7]))
    layers.insert(6, nn.LayerNorm([128, 4, 4]))
    return nn.Sequential(*layers)


def s3_spectral_norm_critic():
    """S3's with spectral norm (Miyato et al. 2018), after so many iterations that one more changes nothing."""
    critic = s3_critic()
    for layer in (0, 2, 4, 7):
        spectral_norm(critic[layer])
    with torch.no_grad():
        for _ in range(100):
            critic(torch.zeros(1, 1, 28, 28))
    return critic


class MinibatchStatistics(nn.Module):
    """A channel more: the mean deviation over the batch (Karras et al. 2018)."""

    def forward(self, x):
        return torch.cat([x, x.std(0, correction=0).mean().repeat(len(x), 1, *x.shape[2:])], 1)


def s3_minibatch_critic():
    """S3's with minibatch statistics before one more convolution, as at the end of ProGAN's."""
    layers = convolutions(1, 32, 64, 128, kernel=3, slope=0.01)
    layers += [MinibatchStatistics(), nn.Conv2d(129, 128, 3, 1, 1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 1))


def dcgan_critic():
    """DCGAN's, for 64×64 pixels, without its BatchNorm."""
    return nn.Sequential(*convolutions(3, 64, 128, 256, 512, kernel=4, slope=0.2), nn.Conv2d(512, 1, 4))


class LabelledCritic(nn.Module):
    """S3's of images and labels, these as a learnt channel more (Mirza, Osindero 2014, with an embedding)."""

    def __init__(self, classes=10):
        super().__init__()
        self.embedding = nn.Embedding(classes, 28 * 28)
        layers = convolutions(2, 32, 64, 128, kernel=3, slope=0.01)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 1))

    def forward(self, x, labels):
        return self.body(torch.cat([x, self.embedding(labels).view(-1, 1, 28, 28)], 1))


def perceptron(*widths, activation=nn.ReLU):
    layers = [layer for wide, wider in pairwise(widths) for layer in (nn.Linear(wide, wider), activation())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 1))


def digits_generator(latent):
    """Of the Keras notebook, latent 50, and of the post, latent 128: 7×7 to 28×28 pixels by transposed convolutions."""
    layers = [nn.Linear(latent, 128 * 7 * 7), nn.LeakyReLU(0.2), nn.Unflatten(1, (128, 7, 7))]
    for _ in range(2):
        layers += [nn.ConvTranspose2d(128, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(128, 1, 7, padding=3), nn.Tanh())


def blank(make):
    """The network that ``make()`` builds, without its numbers: enough to count and to describe."""
    with torch.device("meta"):
        return make()


OPTIONS = {
    nn.Conv2d: lambda m: {"channels": m.out_channels, "kernel": m.kernel_size[0]} | spacing(m),
    nn.ConvTranspose2d: lambda m: {"channels": m.out_channels, "kernel": m.kernel_size[0]} | spacing(m),
    nn.Linear: lambda m: {"width": m.out_features},
    nn.LeakyReLU: lambda m: {"slope": m.negative_slope},
    nn.BatchNorm2d: lambda m: {"eps": m.eps, "momentum": m.momentum},
    nn.LayerNorm: lambda m: {"eps": m.eps},
    nn.Unflatten: lambda m: {"shape": list(m.unflattened_size)},
    nn.Flatten: lambda m: {},
    nn.ReLU: lambda m: {},
    nn.Tanh: lambda m: {},
    nn.SiLU: lambda m: {},
    MinibatchStatistics: lambda m: {},
}


def spacing(convolution):
    return {"stride": convolution.stride[0], "padding": convolution.padding[0]}


@torch.no_grad()
def describe(network, *shape):
    """The layers of a Sequential, first to last, for samples of ``shape``: ``[{"kind", "input", "output", …options}]``.

    ``input`` and ``output`` are shapes of one sample. What a layer computes follows from it alone, so that another
    framework can build the same; its parameters, weight before bias, are those of ``network.parameters()``.
    """
    layers, x = [], torch.zeros(1, *shape, device="meta")
    for layer in copy.deepcopy(network).to("meta", torch.float32).eval():
        y = layer(x)
        layers.append({"kind": type(layer).__name__, "input": list(x.shape[1:]), "output": list(y.shape[1:])})
        layers[-1] |= OPTIONS[type(layer)](layer)
        x = y
    return layers


CURVED = ("LayerNorm", "BatchNorm2d", "MinibatchStatistics", "Tanh", "SiLU")


def multiply_adds(layer):
    """Of a described layer, for one sample; 0 for one without a matrix."""
    if layer["kind"] == "Linear":
        return prod(layer["input"]) * layer["width"]
    if layer["kind"] in ("Conv2d", "ConvTranspose2d"):
        # A transposed convolution's every input meets every weight, a convolution's every output.
        pixels = layer["output" if layer["kind"] == "Conv2d" else "input"][1:]
        return prod(pixels) * layer["kernel"] ** 2 * layer["input"][0] * layer["channels"]
    return 0


def operations(network, *shape, forward=0, backward=0, penalty=0):
    """What has to be computed at least, two operations for a multiply-add: so many samples go only forward, forward and
    backward to the weights, and through a gradient penalty.

    A sample's penalty takes forward, input gradient, tangent and weight gradient, 4 passes; below a curved layer an
    input gradient and a weight gradient more. Nobody needs the input gradient of the first layer but the penalty.
    """
    layers = [layer for layer in describe(network, *shape) if multiply_adds(layer) or layer["kind"] in CURVED]
    total, first = 0, True
    for index, layer in enumerate(layers):
        if not (each := multiply_adds(layer)):
            continue
        inner = 0 if first else 1
        curved = any(above["kind"] in CURVED for above in layers[index:])
        total += each * (forward + (2 + inner) * backward + (4 + curved * (1 + inner)) * penalty)
        first = False
    return 2 * total


def size(network):
    """Elements of all parameters."""
    return sum(param.numel() for param in network.parameters())
