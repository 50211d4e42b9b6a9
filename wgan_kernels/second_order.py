"""The drop-in: within ``second_order()`` a critic's own torch calls go through ``rules/``."""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from .rules import attention, batch_norm, norm, pad, pool, prelu, smooth
from .rules._autocast import under_autocast
from .rules.activation import absolute, hardsigmoid, hardtanh, leaky_relu, relu
from .rules.conv import conv, geometry, same
from .rules.linear import linear


@contextlib.contextmanager
def second_order():
    """Differentiates twice at the cost that arithmetic demands, whatever is called within.

    ::

        with wk.second_order():
            scores = critic(x)
        (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        loss(grad).backward()

    Also a decorator. Convolutions, linear layers, the ReLU family, pooling, padding, norms, softplus, SiLU, ELU, hard
    sigmoid and swish and attention have derivative rules of their own: the double backward calls the backend's
    weight-gradient kernels, sends no zeros through the critic, and works where fused attention or the hard sigmoid have
    none. Values and gradients are PyTorch's, to any order; a parameter that would receive zeros receives zeros.
    Everything else, tensor subclasses too, passes through untouched. ``gradient_penalty``, ``r1_penalty``,
    ``r2_penalty`` and ``dragan_penalty`` use it already.

    Layers too small to gain, below some two million multiply-adds, are left to PyTorch, and activations before the
    first larger one, behind smooth activations linear layers and more of the convolutions, and on a CPU norms of less
    than 16,384 elements. Under ``torch.compile``, ``torch.func``
    transforms, forward mode and saved-tensor hooks (``torch.utils.checkpoint``) PyTorch's own path is taken
    throughout.
    """
    with _Rules():
        yield


class _Rules(TorchFunctionMode):
    """Layers worth it take their rules; so do activations and pooling behind one, which save its share of a pass of
    zeros; so do norms and attention, wherever they are."""

    def __init__(self):
        super().__init__()
        self.behind_a_layer = self.is_smooth = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.is_smooth |= func in _SMOOTH
        rule = _ANYWHERE.get(func) or (_BEHIND_A_LAYER.get(func) if self.behind_a_layer else None)
        if (
            rule is not None
            and not _is_small(func, args, self.is_smooth)
            and torch.is_grad_enabled()
            and _serves(args, kwargs)
        ):
            result = rule(*args, **kwargs)
            if result is not None:
                self.behind_a_layer |= func in _LAYERS
                return result
        return func(*args, **kwargs)


# Multiply-adds from which on a layer's rule gains more than its Python costs. Penalties of three linear layers and of
# two convolutions, by calls, with and without rules, times eager's speed (two cores, AMD EPYC): ReLUs, linear, 2²² 0.99
# and 0.95, 2²³ 1.10 and 0.97, 2²⁴ 1.18 and 0.98; convolutions, 2²³ 0.95 and 0.96, 2²⁴ 1.02 and 0.97, 2²⁶ 1.52 and 0.99.
_WORTHWHILE = 1 << 21


def _worthwhile_if_smooth(func, weight):
    """What a layer's input times its weight has to come to behind a smooth activation, where no zeros would be sent.
    SiLUs, linear, 2²² 0.86 and 0.96, 2²⁶ 0.97 and 0.99; convolutions, 2²⁴ 0.87 and 0.98, 2²⁶ 1.15 and 1.00.
    """
    return math.inf if func is F.linear else weight.shape[1] << 27  # strides of two, which are not counted here


def _is_small(func, args, is_smooth):
    """Whether a layer is evidently too small, at the price of few lookups: its rule may find out more."""
    if func not in _LAYERS or len(args) < 2:
        return False
    size = args[0].numel() * args[1].numel()
    if size < _WORTHWHILE or not is_smooth:
        return size < _WORTHWHILE
    return size < _worthwhile_if_smooth(func, args[1])


def _serves(args, kwargs):
    """Whether a rule may stand in: real tensors of torch's own, recorded by plain autograd."""
    recorded = False
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind is torch.Tensor or kind is nn.Parameter:
            if value.layout is not torch.strided or value.dtype not in _DTYPES:
                return False
            recorded |= value.requires_grad
        elif isinstance(value, torch.Tensor):
            return False
    return recorded and is_recorded_plainly()


def is_recorded_plainly():
    """Whether nobody but plain autograd follows what is called."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    # torch.utils.checkpoint computes again outside of this mode and expects to save the same tensors
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is None


_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}  # the last: masks


def _linear(input, weight, bias=None):
    if input.dim() < 2 or weight.dim() != 2 or input.numel() * weight.shape[0] < _WORTHWHILE:
        return None
    return under_autocast(linear, input, weight, bias)


def _convolution(dims, transposed):
    """The rule of one torch.conv function."""

    def rule(input, weight, bias=None, *settings, **named):
        if input.dim() != dims + 2 or input.numel() == 0:
            return None
        how, is_same = geometry(dims, transposed, settings, named)
        if is_same and set(how.stride) != {1}:  # PyTorch has an error for it
            return None
        samples_and_pixels = input.numel() // input.shape[1]
        if not transposed:
            samples_and_pixels //= math.prod(how.stride)
        if samples_and_pixels * weight.numel() < _WORTHWHILE:
            return None
        if is_same:
            input, padding = same(input, weight, how.dilation)
            how = how._replace(padding=padding)
        return under_autocast(conv, input, weight, bias, how)

    return rule


def _relu(input, inplace=False):
    return relu(input, inplace)


def _relu_(input):
    return relu(input, in_place=True)


def _leaky_relu(input, negative_slope=0.01, inplace=False):
    return leaky_relu(negative_slope)(input, inplace) if negative_slope > 0 else None


def _leaky_relu_(input, negative_slope=0.01):
    return _leaky_relu(input, negative_slope, inplace=True)


def _hardtanh(input, min_val=-1.0, max_val=1.0, inplace=False):
    return hardtanh(min_val, max_val)(input, inplace)


def _hardtanh_(input, min_val=-1.0, max_val=1.0):
    return _hardtanh(input, min_val, max_val, inplace=True)


def _relu6(input, inplace=False):
    return hardtanh(0.0, 6.0)(input, inplace)


def _hardsigmoid(input, inplace=False):
    return hardsigmoid(input, inplace)


_LAYERS = {
    F.linear: _linear,
    torch.conv1d: _convolution(1, False),
    torch.conv2d: _convolution(2, False),
    torch.conv3d: _convolution(3, False),
    torch.conv_transpose1d: _convolution(1, True),
    torch.conv_transpose2d: _convolution(2, True),
    torch.conv_transpose3d: _convolution(3, True),
}
# Where PyTorch has no double backward, or one so long that a rule pays by itself.
_ANYWHERE = {**_LAYERS, F.hardsigmoid: _hardsigmoid, **norm.ROUTES, **batch_norm.ROUTES, **attention.ROUTES}
_SMOOTH = {*smooth.CURVES, torch.Tensor.tanh, torch.Tensor.sigmoid}
_BEHIND_A_LAYER = {
    F.relu: _relu,
    torch.relu: _relu,
    torch.Tensor.relu: _relu,
    torch.relu_: _relu_,
    torch.Tensor.relu_: _relu_,
    F.leaky_relu: _leaky_relu,
    F.leaky_relu_: _leaky_relu_,
    F.hardtanh: _hardtanh,
    F.hardtanh_: _hardtanh_,
    F.relu6: _relu6,
    torch.abs: absolute,
    torch.Tensor.abs: absolute,
    **prelu.ROUTES,
    **smooth.ROUTES,
    **pool.ROUTES,
    **pad.ROUTES,
}
