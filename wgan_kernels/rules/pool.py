"""Pooling: maxima over windows, where the indices of the maxima are the piece, and averages, which are linear.

x: [B, channels, …]. Of maxima the pullback scatters to the indices and the pushforward gathers from them; of averages
the pushforward is the forward map. The backward kernels read of x its shape and strides alone. One dimension is taken
for an image one pixel high, as PyTorch does.

Of a convolution, a pooling and a convolution the penalty's backward dispatches 14 (average) or 17 (maximum) operators,
a weight gradient of zeros among them; 12 and 15 with these rules.
"""

import torch
import torch.nn.functional as F

from .. import _layout
from .piecewise import Maps, piecewise

aten = torch.ops.aten


def _maxima(forward, backward):
    """forward: x → (y, indices); backward: (δ, x, indices) → like x."""

    def saving(x):
        y, indices = forward(x)
        return y, x, indices

    return Maps(saving, backward, _gathered)


def _gathered(t, x, indices):
    if _layout.memory_format(indices) is torch.channels_last:  # which flattening the pixels would copy
        rows = _pixels(t).gather(1, _pixels(indices))
        return rows.unflatten(1, indices.shape[2:]).permute(0, 3, 1, 2)
    return t.flatten(2).gather(-1, indices.flatten(2)).view_as(indices)


def _pixels(images):
    return images.permute(0, 2, 3, 1).flatten(1, 2)


def max_pool(dims, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The ``Maps`` of a maximum over windows of samples [B, channels, …]."""
    forward, backward = _MAX_POOL[max(dims, 2)]
    how = (*_sizes(dims, (kernel_size, 1), (stride or kernel_size, 1), (padding, 0), (dilation, 1)), ceil_mode)
    maps = _maxima(lambda x: forward(x, *how), lambda delta, x, indices: backward(delta, x, *how, indices))
    return _as_images(dims, maps)


def adaptive_max_pool(dims, output_size):
    """The same of an adaptive one."""
    forward, backward = _kernels("adaptive_max_pool{}d", dims)
    maps = _maxima(lambda x: forward(x, _output_size(x, dims, output_size)), backward)
    return _as_images(dims, maps)


def _as_images(dims, maps):
    """Of samples [B, channels, pixels] as images one pixel high. What is saved stays images."""
    if dims > 1:
        return maps

    def forward(x):
        y, *saved = maps.forward(x.unsqueeze(-2))
        return y.squeeze(-2), *saved

    return Maps(
        forward,
        lambda delta, *saved: maps.pullback(delta.unsqueeze(-2), *saved).squeeze(-2),
        lambda t, *saved: maps.pushforward(t.unsqueeze(-2), *saved).squeeze(-2),
    )


def _averages(forward, backward):
    """forward: x → y; backward: (δ, x) → like x."""
    return Maps(lambda x: (forward(x), x), backward, lambda t, x: forward(t))


_MAX_POOL = {
    2: (aten.max_pool2d_with_indices.default, aten.max_pool2d_with_indices_backward.default),
    3: (aten.max_pool3d_with_indices.default, aten.max_pool3d_with_indices_backward.default),
}


def _max_pool(dims):
    def route(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        if return_indices or not _served(input, dims):
            return None
        return piecewise(input, max_pool(dims, kernel_size, stride, padding, dilation, ceil_mode))

    return route


def _avg_pool(dims):
    forward, backward = _kernels("avg_pool{}d", dims)

    def route(
        input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        if not _served(input, dims):
            return None
        sizes = _sizes(dims, (kernel_size, 1), (stride or kernel_size, 1), (padding, 0))
        how = (*sizes, ceil_mode, count_include_pad, divisor_override)
        maps = _averages(lambda x: forward(x, *how), lambda delta, x: backward(delta, x, *how))
        return piecewise(input, _as_images(dims, maps))

    return route


def _adaptive_max_pool(dims):
    def route(input, output_size, return_indices=False):
        if return_indices or not _served(input, dims):
            return None
        return piecewise(input, adaptive_max_pool(dims, output_size))

    return route


def _adaptive_avg_pool(dims):
    forward, backward = _kernels("_adaptive_avg_pool{}d", dims)

    def route(input, output_size):
        if not _served(input, dims):
            return None
        size = _output_size(input, dims, output_size)
        if set(size) == {1}:  # PyTorch takes the mean, which sends no zeros
            return None
        return piecewise(input, _as_images(dims, _averages(lambda x: forward(x, size), backward)))

    return route


def _kernels(name, dims):
    name = name.format(max(dims, 2))
    return getattr(aten, name).default, getattr(aten, f"{name}_backward").default


def _served(x, dims):
    """Batches with something in them; of half types not under autocast, which on the CPU computes some in float32."""
    half = x.dtype not in (torch.float32, torch.float64)
    return x.dim() == dims + 2 and x.numel() > 0 and not (half and torch.is_autocast_enabled(x.device.type))


def _sizes(dims, *sizes):
    """Of pairs (size, what it is along a height that there is not): one entry per dimension."""
    lists = [(list(size) if isinstance(size, (tuple, list)) else [size], fill) for size, fill in sizes]
    return [[fill, *size] if dims == 1 else size * dims if len(size) == 1 else size for size, fill in lists]


def _output_size(x, dims, size):
    (sizes,) = _sizes(dims, (size, 1))
    return [before if after is None else after for before, after in zip(x.shape[-len(sizes) :], sizes, strict=True)]


ROUTES = {
    torch.max_pool1d: _max_pool(1),
    torch.max_pool2d: _max_pool(2),
    torch.max_pool3d: _max_pool(3),
    F.max_pool1d: _max_pool(1),
    F.max_pool2d: _max_pool(2),
    F.max_pool3d: _max_pool(3),
    torch.avg_pool1d: _avg_pool(1),
    F.avg_pool2d: _avg_pool(2),
    F.avg_pool3d: _avg_pool(3),
    F.adaptive_max_pool1d: _adaptive_max_pool(1),
    F.adaptive_max_pool2d: _adaptive_max_pool(2),
    F.adaptive_max_pool3d: _adaptive_max_pool(3),
    F.adaptive_avg_pool1d: _adaptive_avg_pool(1),
    F.adaptive_avg_pool2d: _adaptive_avg_pool(2),
    F.adaptive_avg_pool3d: _adaptive_avg_pool(3),
}
