"""Smooth activations and their first two derivatives by kernels, on a CPU: ``rules/smooth.py`` has the calculus."""

import functools

import torch

from .. import _dispatch, _layout, _library

CURVES = (None, "tanh", "sigmoid", "softplus", "silu", "gelu", "elu")  # as csrc/math/smooth.h numbers them

_library.define_compiled("smooth_fwd(Tensor x, int curve) -> Tensor", fake=lambda x, curve: torch.empty_like(x))
_library.define_compiled(
    "smooth_bwd(Tensor delta, Tensor kept, Tensor? before, int curve) -> Tensor",
    fake=lambda delta, kept, before, curve: torch.empty_like(kept),
)
_library.define_compiled(
    "smooth_bwd_bwd(Tensor t, Tensor delta, Tensor kept, int curve) -> (Tensor, Tensor)",
    fake=lambda t, delta, kept, curve: (torch.empty_like(kept), torch.empty_like(kept)),
)
fwd = torch.ops.wgan_kernels.smooth_fwd.default
bwd = torch.ops.wgan_kernels.smooth_bwd.default
bwd_bwd = torch.ops.wgan_kernels.smooth_bwd_bwd.default


class Kernels:
    """As a ``rules.smooth.Curve``, for tensors that are contiguous or in channels-last memory."""

    def __init__(self, curve):
        self.number, self.of_result = CURVES.index(curve.name), curve.of_result

    def forward(self, x):
        (x,), turned_back = _turned(x)
        return turned_back(fwd(x, self.number))

    def pullback(self, delta, kept):
        (kept, delta), turned_back = _turned(kept, delta)
        return turned_back(bwd(delta, kept, None, self.number))

    def pullback_onto(self, bent, delta, kept):
        (kept, delta, bent), turned_back = _turned(kept, delta, bent)
        return turned_back(bwd(delta, kept, bent, self.number))

    def second(self, t, delta, kept):
        (kept, delta, t), turned_back = _turned(kept, delta, t)
        return map(turned_back, bwd_bwd(t, delta, kept, self.number))


@functools.lru_cache(maxsize=64)
def _kernels(curve):
    return Kernels(curve)


def suited(curve, x):
    """The curve, or its ``Kernels`` where they take x."""
    if curve.name is None or x.dtype is not torch.float32 or not x.is_cpu:
        return curve
    if not _dispatch.takes_vectors(x.device):
        return curve
    is_dense = x.is_contiguous() or (x.dim() == 4 and _layout.memory_format(x) is torch.channels_last)
    return _kernels(curve) if is_dense else curve


def _turned(kept, *others):
    """(all of them contiguous, what turns a result back)"""
    if kept.is_contiguous():
        return (kept, *(t.contiguous() for t in others)), lambda y: y
    turned = (t.permute(0, 2, 3, 1).contiguous() for t in (kept, *others))
    return tuple(turned), lambda y: y.permute(0, 3, 1, 2)
