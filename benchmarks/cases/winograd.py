"""Convolutions that minimal filtering serves on a CPU: each of their maps beside PyTorch's, channels-last."""

from math import prod

import torch

from wgan_kernels.rules.conv import MAPS, Geometry

from ..case import OURS, Case, label


def geometry(stride):
    return Geometry((stride,) * 2, padding=(1, 1), dilation=(1, 1), transposed=False, output_padding=(0, 0), groups=1)


def gradient(x, w, delta, how, *asked):
    return torch.ops.aten.convolution_backward(delta, x, w, None, *how, (*asked, False))


# name → (ours, PyTorch's): (x, w, b, δ, how) → tensor
KINDS = {
    "forward": (MAPS.forward, lambda x, w, b, delta, how: torch.convolution(x, w, b, *how)),
    "input-gradient": (MAPS.pullback, lambda x, w, b, delta, how: gradient(x, w, delta, how, True, False)[0]),
    "weight-gradient": (MAPS.weight_gradient, lambda x, w, b, delta, how: gradient(x, w, delta, how, False, True)[1]),
}
ARGUMENTS = {"forward": "x w b", "input-gradient": "delta w x", "weight-gradient": "x delta w"}  # of ours


def case(name, batch, channels, side, wider, taps, stride):
    how, (ours, eager) = geometry(stride), KINDS[name]
    less = (side + 2 - taps) // stride + 1
    of_x, of_y, of_w = (batch, channels, side, side), (batch, wider, less, less), (wider, channels, taps, taps)

    def make(device, dtype):
        x, delta, w, b = (torch.randn(shape, device=device, dtype=dtype) for shape in (of_x, of_y, of_w, (wider,)))
        x, delta = (images.contiguous(memory_format=torch.channels_last) for images in (x, delta))
        return x, w, b, delta

    def by_filtering(x, w, b, delta):
        given = {"x": x, "w": w, "b": b, "delta": delta}
        return ours(*(given[key] for key in ARGUMENTS[name].split()), how)

    def by_pytorch(x, w, b, delta):
        return eager(x, w, b, delta, how)

    of_kernel = "" if (taps, stride) == (4, 2) else f"-by-{taps}x{taps}-of-stride-{stride}"
    return Case(
        name=f"winograd/{name}-{label(of_x)}-to-{wider}{of_kernel}",
        what=f"{name.replace('-', ' ')} of a convolution, {taps}×{taps} with stride {stride}",
        make=make,
        contenders={OURS: by_filtering, "eager": by_pytorch},
        reference=by_pytorch,  # the gate takes it in float64
        traffic=prod(of_x) + prod(of_y) + prod(of_w),
        # What direct convolution needs, borders included. Minimal filtering does with less: it may pass that floor.
        operations=2 * prod(of_y) * prod(of_w[1:]),
        kind="cpu",
    )


SHAPES = (
    (64, 128, 28, 128, 4, 2),
    (48, 64, 32, 128, 4, 2),
    (64, 32, 14, 64, 3, 2),
    (192, 64, 7, 128, 3, 2),
    (64, 128, 32, 128, 3, 1),
    (64, 64, 14, 64, 3, 1),
)
CASES = tuple(case(name, *shape) for shape in SHAPES for name in KINDS)
