"""A network's layers in a row, where nothing is differentiated: batch normalisation and what is behind it in one pass.

::

    y = a(x̂·w + b),    x̂ = (x − mean(x)) / √(var(x) + eps)        over the batch and its pixels

A convolution's result is nobody else's: it is normalised where it lies, unless somebody's hook has seen it.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as _module
from torch.overrides import TorchFunctionMode

from . import _dispatch, _library
from .one_pass import has_hooks, has_own_forward

_library.define_compiled(
    "batch_norm_(Tensor(a!) x, Tensor? w, Tensor? b, Tensor(b!)? mean, Tensor(c!)? variance, float momentum, float eps,"
    " float slope) -> ()",
    fake=lambda *args: None,
)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_CALL = ("__call__", "_call_impl", "forward", "__iter__")  # what a Sequential's call is made of
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)
_PIXELS = (torch.float32, torch.bfloat16)


def run(network, x, *condition):
    """network(x, *condition), without gradients."""
    if condition or _module._has_any_global_hook() or not _is_served(x):
        return network(x, *condition)
    is_own = is_done = False  # x is a convolution's result; the layer's turn is over already
    for layer, behind in pairwise([*_layers(network), None]):
        if is_done:
            is_done = False
        elif is_own and _is(layer, nn.BatchNorm2d) and layer.training:
            slope = _slope(behind)
            with _InPlace(slope) as normalisation:
                x = layer(x)
            is_done = normalisation.is_done and slope is not None
        else:
            x = layer(x)
        is_own = _is(layer, *_CONVOLUTIONS)
    return x


def _is_served(x):
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not isinstance(x, torch.Tensor):
        return False
    return x.is_cpu and not _dispatch.is_intercepted() and _dispatch.takes_compiled(x.device)


def _layers(network):
    """What its call calls in turn, or itself: all parts of a Sequential whose call is a Sequential's and unobserved."""
    if _is_row(network):
        for part in network:
            yield from _layers(part)
    else:
        yield network


def _is_row(network):
    if not isinstance(network, nn.Sequential) or not _is_plain(network):
        return False
    return all(getattr(type(network), name) is getattr(nn.Sequential, name) for name in _CALL)


def _is(layer, *kinds):
    return type(layer) in kinds and _is_plain(layer)


def _is_plain(module):
    """Whether a call of it is its class's forward and no more."""
    return not has_hooks(module) and not has_own_forward(module) and module._compiled_call_impl is None


def _slope(layer):
    """What the layer multiplies values below 0 with, and no others; None for any other layer."""
    if not _is(layer, *_ACTIVATIONS):
        return None
    return 0.0 if type(layer) is nn.ReLU else layer.negative_slope


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
        if not training or type(x) is not torch.Tensor or x.dtype not in _PIXELS or eps <= 0:
            return False
        if any(not t.is_cpu for t in tensors) or any(t.dtype is not torch.float32 for t in tensors[1:]):
            return False
        if x.dim() != 4 or x.numel() == x.shape[1] or not x.is_contiguous(memory_format=torch.channels_last):
            return False
        if any(t.shape != x.shape[1:2] or not t.is_contiguous() for t in tensors[1:]) or x.numel() == 0:
            return False
        pixels = x.permute(0, 2, 3, 1).view(-1, x.shape[1])
        torch.ops.wgan_kernels.batch_norm_(pixels, weight, bias, mean, variance, momentum, eps, self.slope)
        return True
