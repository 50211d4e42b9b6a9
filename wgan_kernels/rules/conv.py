"""Convolutions of 1, 2 and 3 dimensions, transposed or not: y = conv(x, w) + b.

x: [B, in, …]; w: [out, in/groups, …], transposed [in, out/groups, …]; b: [out]. The weight gradient is the backend's
own kernel for it; PyTorch's double backward convolves with the output gradient as a filter instead, as large as the
feature map (pytorch#22577).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from .bilinear import Maps, bilinear

_backward = torch.ops.aten.convolution_backward.default


class Geometry(NamedTuple):
    """What a convolution is decided by, beside its arguments; each tuple has one entry per spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


def same(x, w, dilation):
    """(x, padding) for as many pixels out as in at stride 1; of an odd number that is missing x gets one at its end."""
    missing = [d * (size - 1) for d, size in zip(dilation, w.shape[2:], strict=True)]
    if any(m % 2 for m in missing):
        x = F.pad(x, [side for m in reversed(missing) for side in (0, m % 2)])
    return x, tuple(m // 2 for m in missing)


def _pullback(delta, w, x, how):
    if _few_channels(x, how):
        # [B, in·kernel, pixels of δ]; by @ δ would be copied into one matrix, and back, since w requires a gradient
        columns = torch.bmm(w.flatten(1).t().expand(len(delta), -1, -1), delta.flatten(2))
        return F.fold(columns, x.shape[2:], w.shape[2:], how.dilation, how.padding, how.stride)
    return _backward(delta, x, w, None, *how, (True, False, False))[0]


def _few_channels(x, how):
    """Where a matrix product and the sum of its columns beat the CPU's kernel, which leaves vector units idle.

    Of 64 images of 28×28, from 64 channels, stride 2: 4×4 to one channel 0.8 ms instead of 4.5, to three 1.4 instead of
    2.9, to four 1.9 instead of 3.0, to six 2.7 instead of 3.1; of 16 of 64×64, to four 2.1 instead of 3.1, to eight 7.3
    instead of 4.8 (float32, a busy AMD EPYC with 2 cores).
    """
    plain = x.dim() == 4 and not how.transposed and how.groups == 1
    return plain and x.shape[1] <= 4 and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _gradients(x, delta, w, how, asked):
    bias = [delta.shape[1]] if asked[2] else None
    return [g if wanted else None for g, wanted in zip(_backward(delta, x, w, bias, *how, asked), asked, strict=True)]


MAPS = Maps(
    forward=lambda x, w, b, how: torch.convolution(x, w, b, *how),
    pullback=_pullback,
    weight_gradient=lambda x, delta, w, how: _backward(delta, x, w, None, *how, (False, True, False))[1],
    bias_gradient=lambda delta, how: delta.sum((0, *range(2, delta.dim()))),
    gradients=_gradients,
)
conv = bilinear(MAPS)
