"""Convolutions of 1, 2 and 3 dimensions, transposed or not: y = conv(x, w) + b.

x: [B, in, …]; w: [out, in/groups, …], transposed [in, out/groups, …]; b: [out]. The weight gradient is the backend's
own kernel for it; PyTorch's double backward convolves with the output gradient as a filter instead, as large as the
feature map (pytorch#22577).
"""

from typing import NamedTuple

import torch

from .bilinear import bilinear

_backward = torch.ops.aten.convolution_backward.default


class Geometry(NamedTuple):
    """What a convolution is decided by, beside its arguments; each tuple has one entry per spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


def _gradients(x, delta, w, how, asked):
    bias = [delta.shape[1]] if asked[2] else None
    return [g if wanted else None for g, wanted in zip(_backward(delta, x, w, bias, *how, asked), asked, strict=True)]


conv = bilinear(
    forward=lambda x, w, b, how: torch.convolution(x, w, b, *how),
    pullback=lambda delta, w, x, how: _backward(delta, x, w, None, *how, (True, False, False))[0],
    weight_gradient=lambda x, delta, w, how: _backward(delta, x, w, None, *how, (False, True, False))[1],
    bias_gradient=lambda delta, how: delta.sum((0, *range(2, delta.dim()))),
    gradients=_gradients,
)
