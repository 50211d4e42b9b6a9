"""Convolutions to a few channels as a product and the sum of its columns: CPU kernels leave vector units idle there.

With W the kernel as a matrix [out·kernel, in], and fold, which adds each column's entries to where they lie::

    y   = fold(W x)
    x̄  = Wᵀ unfold(δ)
    w̄  = Σ unfold(δ) xᵀ        over the samples

A transposed convolution is that by definition. One of stride 1 is it too, with the kernel turned around. The pullback
of a convolution from a few channels is a transposed convolution to them.
"""

import math

import torch
import torch.nn.functional as F

FEW = 4


def serve(x, w, how):
    """Whether this convolution is one to a few channels that gains by it.

    Of 64 images of 28×28 in float32, ms by PyTorch and so, on two cores of an AMD EPYC::

        kernel                        forward       input gradient    weight gradient
        7×7, stride 1, 128 → 1        41.1   6.9    41.4   5.5        43.2   6.2
        3×3, stride 1, 64 → 3, 32×32   8.4   4.1     6.9   3.7         7.8   4.2
        4×4, stride 2, from 64: the input gradient to 1 channel 4.5 and 0.8, 3: 2.9 and 1.4, 4: 3.0 and 1.9, 6: 3.1
        and 2.7; of 16 of 64×64 to 8: 4.8 and 7.3
    """
    if x.dim() != 4 or how.groups != 1 or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    kernel = math.prod(w.shape[2:])
    if how.transposed:
        return w.shape[1] <= FEW and kernel > 1
    if w.shape[0] > FEW or kernel == 1 or set(how.stride) != {1} or min(_fold(w, how)[2]) < 0:
        return False
    return 2 * math.prod(size(x, w, how)) >= math.prod(x.shape[2:])  # else most columns would be formed for nothing


def size(x, w, how):
    """[height, width] of the result of a convolution with stride 1, or of a transposed one."""
    axes = zip(x.shape[2:], *_fold(w, how), how.output_padding, strict=True)
    return [(n - 1) * stride - 2 * pad + d * (k - 1) + 1 + more for n, k, d, pad, stride, more in axes]


def forward(x, w, size, how):
    """y, without a bias, of that size; differentiable."""
    # bmm: by @, x would be copied into one matrix, and back, where w requires a gradient
    columns = torch.bmm(_matrix(w, how).expand(len(x), -1, -1), _pixels(x))
    return F.fold(columns, size, *_fold(w, how))


def pullback(delta, w, x, how):
    columns = F.unfold(delta, *_fold(w, how))
    return torch.bmm(_matrix(w, how).t().expand(len(x), -1, -1), columns).view(x.shape)


def weight_gradient(x, delta, w, how):
    columns = F.unfold(delta, *_fold(w, how))
    grad = torch.bmm(columns, _pixels(x).transpose(1, 2)).sum(0).t()
    return grad.reshape(w.shape) if how.transposed else grad.reshape(w.transpose(0, 1).shape).transpose(0, 1).flip(2, 3)


def _matrix(w, how):
    """[out·kernel, in]"""
    w = w if how.transposed else w.flip(2, 3).transpose(0, 1)
    return w.flatten(1).t()


def _fold(w, how):
    """(kernel, dilation, padding, stride) of the fold."""
    kernel = tuple(w.shape[2:])
    if how.transposed:
        return kernel, how.dilation, how.padding, how.stride
    padding = tuple(d * (k - 1) - p for k, d, p in zip(kernel, how.dilation, how.padding, strict=True))
    return kernel, how.dilation, padding, (1, 1)


def _pixels(x):
    """x as [B, channels, pixels], in the memory that it has."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)
    return x.flatten(2)
