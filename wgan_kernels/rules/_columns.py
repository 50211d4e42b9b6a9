"""Convolutions to a few channels, where CPU kernels leave vector units idle: the forward pass is a matrix product, and
gradients are those of a transposed convolution.

With W the kernel as a matrix [out·kernel, in], and fold, which adds each column's entries to where they lie::

    y = fold(W x)

A transposed convolution is that by definition. One of stride 1 is it too, with the kernel turned around. The pullback
of a convolution from a few channels is a transposed convolution to them.
"""

import math

import torch
import torch.nn.functional as F

from .. import _dispatch, _layout, _library
from . import _aten
from ._geometry import size

FEW = 4


def _fake(x, w, height, width, *geometry):
    return x.new_empty(len(x), w.shape[1], height, width)


_library.define_compiled(
    "columns(Tensor x, Tensor w, int height, int width, int stride_rows, int stride_columns, int padding_rows,"
    " int padding_columns, int dilation_rows, int dilation_columns) -> Tensor",
    fake=_fake,
)


def serve(x, w, how, sweep):
    """Whether a sweep over this convolution, "forward", "pullback" or "weights", the weight gradient, is to a few
    channels, or a gradient of such a one, and gains by it.

    Of 64 images in float32, ms by PyTorch and so, on two cores of an AMD EPYC; samples are NCHW, channels last::

        kernel                         forward     all gradients                forward     all gradients
        7×7, 128 → 1, 28×28            44    9.9   109   35                     42   11     50    11
        5×5,  64 → 1, 28×28            13    4.6    28    5.8                   12    4.8   14     3.6
        3×3,  64 → 3, 32×32             9.8  5.6    17    6.7                    7.2  7.0    9.9   5.3
        3×3, 128 → 2, 28×28            12    5.5    25   27                     10    6.7   16     7.0
        3×3,  64 → 4, 14×14             1.6  1.7     3.6  2.9                    1.4  1.8    2.4   1.7
        transposed 4×4 of stride 2, 64 → 3, 14×14
                                        4.0  2.0   as they are                   3.1  1.9   as they are

    and the input gradient of a 4×4 kernel of stride 2 to 1 channel 4.5 and 0.8, to 3 channels 2.9 and 1.4, 4: 3.0 and
    1.9, 6: 3.1 and 2.7; of 16 images of 64×64 to 8: 4.8 and 7.3.
    """
    if not x.is_cpu or x.dtype not in (torch.float32, torch.float64) or x.dim() != 4:
        return False
    if how.groups != 1 or math.prod(w.shape[2:]) == 1:
        return False
    if how.transposed:
        return sweep == "forward" and w.shape[1] <= FEW
    return (sweep == "pullback" and _is_from_few(w)) or _is_turned(x.shape, w.shape, how)


def _is_from_few(w):
    """So that its pullback is a transposed convolution to them."""
    return w.shape[1] <= FEW


def _is_turned(images, kernel, how):
    """Whether it is a transposed convolution to a few with the kernel turned around."""
    if kernel[0] > FEW or set(how.stride) != {1} or min(_fold(kernel, how)[2]) < 0:
        return False
    return 2 * math.prod(size(images, kernel, how)) >= math.prod(images[2:])  # else most columns would be for nothing


def forward(x, w, b, how):
    y = _layout.alike(x, _to_few(x, w, size(x.shape, w.shape, how), how))[1]
    return y if b is None else y + b.view(-1, 1, 1)


def pullback(delta, w, x, how):
    if _is_from_few(w):
        return _layout.alike(x, _to_few(delta, w, x.shape[2:], how._replace(transposed=True)))[1]
    return _aten.pullback(delta, turn(w), x, transposed(w.shape, how))


def weight_gradient(x, delta, w, how):
    return turn(_aten.weight_gradient(x, delta, w.transpose(0, 1), transposed(w.shape, how)))


def _to_few(x, w, size, how):
    """y, without a bias, of that size; differentiable."""
    if _is_compiled_for(x):
        _, dilation, padding, stride = _fold(w.shape, how)
        kernel = (w if how.transposed else turn(w)).contiguous()
        pixels = x.permute(0, 2, 3, 1)
        return torch.ops.wgan_kernels.columns(pixels, kernel, *size, *stride, *padding, *dilation)
    # bmm: by @, x would be copied into one matrix, and back, where w requires a gradient
    columns = torch.bmm(_matrix(w, how).expand(len(x), -1, -1), _pixels(x))
    return F.fold(columns, size, *_fold(w.shape, how))


def _is_compiled_for(x):
    """Whether the kernel that adds columns while they are in the cache takes x; it has no derivative.

    Of 64 images in channels-last memory, ms by product and fold and by it: 7×7, 128 → 1, 28×28: 7.9, 5.5; 5×5, 64 → 1,
    28×28: 3.3, 1.6; 3×3, 64 → 3, 32×32: 4.9, 2.4; transposed 4×4 of stride 2, 64 → 3, 14×14: 1.2, 0.7.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype is not torch.float32:
        return False
    return _is_channels_last(x) and _dispatch.takes_vectors(x.device)


def transposed(kernel, how):
    """The geometry of the transposed convolution that this one of stride 1 is, by the kernel turned around."""
    return how._replace(transposed=True, padding=_fold(kernel, how)[2])


def turn(w):
    """The kernel turned around, from a convolution's to that of the transposed one, and back."""
    return w.transpose(0, 1).flip(2, 3)


def _matrix(w, how):
    """[out·kernel, in]"""
    w = w if how.transposed else turn(w)
    return w.flatten(1).t()


def _fold(kernel, how):
    """(kernel, dilation, padding, stride) of the fold, of a kernel's shape."""
    kernel = tuple(kernel[2:])
    if how.transposed:
        return kernel, how.dilation, how.padding, how.stride
    padding = tuple(d * (k - 1) - p for k, d, p in zip(kernel, how.dilation, how.padding, strict=True))
    return kernel, how.dilation, padding, (1, 1)


def _pixels(x):
    """x as [B, channels, pixels], in the memory that it has."""
    if _is_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)
    return x.flatten(2)


def _is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)
