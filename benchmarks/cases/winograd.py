"""A convolution with a 4×4 or 3×3 kernel and stride 2 on a CPU: each of its three maps beside PyTorch's, channels-last."""

from math import prod

import torch

from wgan_kernels.rules.conv import MAPS, Geometry

from ..case import OURS, Case, label

HOW = Geometry(stride=(2, 2), padding=(1, 1), dilation=(1, 1), transposed=False, output_padding=(0, 0), groups=1)


def gradient(x, w, delta, *asked):
    return torch.ops.aten.convolution_backward(delta, x, w, None, *HOW, (*asked, False))


# name → (ours, PyTorch's): (x, w, b, δ) → tensor
KINDS = {
    "forward": (
        lambda x, w, b, delta: MAPS.forward(x, w, b, HOW),
        lambda x, w, b, delta: torch.convolution(x, w, b, *HOW),
    ),
    "input-gradient": (
        lambda x, w, b, delta: MAPS.pullback(delta, w, x, HOW),
        lambda x, w, b, delta: gradient(x, w, delta, True, False)[0],
    ),
    "weight-gradient": (
        lambda x, w, b, delta: MAPS.weight_gradient(x, delta, w, HOW),
        lambda x, w, b, delta: gradient(x, w, delta, False, True)[1],
    ),
}


def case(name, batch, channels, side, wider, taps):
    ours, eager = KINDS[name]
    half = (side - taps + 2) // 2 + 1
    of_x, of_y, of_w = (batch, channels, side, side), (batch, wider, half, half), (wider, channels, taps, taps)

    def make(device, dtype):
        x, delta, w, b = (torch.randn(shape, device=device, dtype=dtype) for shape in (of_x, of_y, of_w, (wider,)))
        x, delta = (images.contiguous(memory_format=torch.channels_last) for images in (x, delta))
        return x, w, b, delta

    return Case(
        name=f"winograd/{name}-{label(of_x)}-to-{wider}" + ("" if taps == 4 else f"-by-{taps}x{taps}"),
        what=f"{name.replace('-', ' ')} of a convolution, {taps}×{taps} with stride 2",
        make=make,
        contenders={OURS: ours, "eager": eager},
        reference=eager,  # the gate takes it in float64
        traffic=prod(of_x) + prod(of_y) + prod(of_w),
        # What direct convolution needs, borders included. Minimal filtering does with less: it may pass that floor.
        operations=2 * prod(of_y) * prod(of_w[1:]),
        kind="cpu",
    )


SHAPES = (64, 128, 28, 128, 4), (48, 64, 32, 128, 4), (64, 32, 14, 64, 3), (192, 64, 7, 128, 3)
CASES = tuple(case(name, *shape) for shape in SHAPES for name in KINDS)
