"""What a convolution is decided by, and what this package's CPU kernels for some of them ask of their images."""

from typing import NamedTuple

import torch

from .. import _dispatch

PANEL = 32  # kernels by panels take channels in multiples of it


class Geometry(NamedTuple):
    """What a convolution is decided by, beside its arguments; each tuple has one entry per spatial dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


def size(images, kernel, how):
    """[height, width] of the result, of shapes; below 1 where there is none."""
    axes = zip(images[2:], kernel[2:], how.stride, how.padding, how.dilation, how.output_padding, strict=True)
    if how.transposed:
        return [(n - 1) * s - 2 * p + d * (taps - 1) + 1 + more for n, taps, s, p, d, more in axes]
    return [along(n, taps, s, p, d) for n, taps, s, p, d, _ in axes]


def along(pixels, taps, stride, padding, dilation=1):
    """Of an axis: how many pixels the result of a convolution has."""
    return (pixels + 2 * padding - dilation * (taps - 1) - 1) // stride + 1


def takes(x, w, dtypes):
    """Whether there are kernels for tensors like these."""
    return x.is_cpu and x.dtype in dtypes and w.dtype is x.dtype and not torch.compiler.is_compiling()


def has_panels(images, kernel, how):
    """Whether channels come in multiples, of any samples, and nothing is skipped; of shapes."""
    if len(images) != 4 or how.dilation != (1, 1) or how.groups != 1 or not images[0]:
        return False
    return not kernel[0] % PANEL and not kernel[1] % PANEL and images[1] == kernel[not how.transposed]


def is_fast(x):
    """Whether kernels for vectors run here, and x lies as they want it."""
    return _dispatch.takes_vectors(x.device) and x.is_contiguous(memory_format=torch.channels_last)


def pixels(x):
    """x as [B, rows, columns, channels], contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def from_pixels(y):
    """[B, rows, columns, channels] as images, in channels-last memory."""
    return y.permute(0, 3, 1, 2)


def row(b):
    return b if b is None else b.contiguous()
