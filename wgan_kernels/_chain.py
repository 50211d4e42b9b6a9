"""A network's layers in a row, where nothing is differentiated: batch normalisation and what is behind it in one pass.

::

    y = a(x̂·w + b),    x̂ = (x − mean(x)) / √(var(x) + eps)        over the batch and its pixels

A convolution's result is nobody else's: it is normalised where it lies.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as _module
from torch.overrides import TorchFunctionMode

from . import _dispatch, _library
from .one_pass import chain

_library.define_compiled(
    "batch_norm_(Tensor(a!) x, Tensor? w, Tensor? b, Tensor(b!)? mean, Tensor(c!)? variance, float momentum, float eps,"
    " float slope) -> ()",
    fake=lambda *args: None,
)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def run(network, x):
    """network(x), without gradients."""
    layers = None if _module._has_any_global_hook() or not _is_served(x) else chain(network)
    if layers is None:
        return network(x)
    is_own, behind = False, iter([*layers[1:], None])
    layers = iter(layers)
    for layer in layers:
        following = next(behind)
        if is_own and type(layer) is nn.BatchNorm2d and layer.training:
            slope = _slope(following)
            with _InPlace(slope) as normalisation:
                x = layer(x)
            if normalisation.is_done and slope is not None:
                next(layers), next(behind)
        else:
            x = layer(x)
        is_own = type(layer) in _CONVOLUTIONS
    return x


def _is_served(x):
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not isinstance(x, torch.Tensor):
        return False
    return x.is_cpu and not _dispatch.is_intercepted() and _dispatch.takes_compiled(x.device)


def _slope(layer):
    """What the layer multiplies values below 0 with, and no others; None for any other layer."""
    if type(layer) is nn.ReLU:
        return 0.0
    return layer.negative_slope if type(layer) is nn.LeakyReLU else None


class _InPlace(TorchFunctionMode):
    """Within it a batch is normalised where it lies, and what is below 0 multiplied with the slope, if there is one."""

    def __init__(self, slope):
        super().__init__()
        self.slope = 1.0 if slope is None else slope
        self.is_done = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.batch_norm:
            self.is_done = self._normalise(*args, **(kwargs or {}))
            if self.is_done:
                return args[0]
        return func(*args, **(kwargs or {}))

    def _normalise(self, x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        tensors = [t for t in (x, mean, variance, weight, bias) if t is not None]
        if not training or any(t.dtype is not torch.float32 or not t.is_cpu for t in tensors):
            return False
        if x.dim() != 4 or x.numel() == x.shape[1] or not x.is_contiguous(memory_format=torch.channels_last):
            return False
        if any(t.shape != x.shape[1:2] or not t.is_contiguous() for t in tensors[1:]) or x.numel() == 0:
            return False
        pixels = x.permute(0, 2, 3, 1).view(-1, x.shape[1])
        torch.ops.wgan_kernels.batch_norm_(pixels, weight, bias, mean, variance, momentum, eps, self.slope)
        return True
