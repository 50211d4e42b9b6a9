"""Convolutions by PyTorch's own kernels, on any device and of any dimensions."""

import torch

from .. import _layout

_backward = torch.ops.aten.convolution_backward.default
# Elements of a kernel for one of the samples, from which on its gradient is not made in channels-last memory, where it
# would be copied twice. 256 channels of 8×8 to 512, 4×4: 16 samples (8) 4.8 and 3.6 ms, 64 (2) 14.5 and 13.1.
_LARGE = 2


def forward(x, w, b, how):
    return torch.convolution(x, w, b, *how)


def pullback(delta, w, x, how):
    return _backward(delta, x, w, None, *how, (True, False, False))[0]


def weight_gradient(x, delta, w, how):
    """In the memory of w where that costs nothing. Of w itself nothing is read."""
    format_ = _layout.memory_format(x)
    if format_ is not torch.contiguous_format and w.numel() >= _LARGE * x.numel():
        x, delta, format_ = x.contiguous(), delta.contiguous(), torch.contiguous_format
    if not w.is_contiguous(memory_format=format_):  # else PyTorch would copy it
        w = torch.empty_like(w, memory_format=format_)
    return _backward(delta, x, w, None, *how, (False, True, False))[1]


def gradients(x, delta, w, how, asked):
    """With respect to x, w and b: those asked for, None for the others."""
    bias = [delta.shape[1]] if asked[2] else None
    grads = _backward(delta, x, w, bias, *how, asked)
    return [grad if wanted else None for grad, wanted in zip(grads, asked, strict=True)]
