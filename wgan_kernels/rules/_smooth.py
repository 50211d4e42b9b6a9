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
    """As a ``rules.smooth.Curve``, for tensors [B, …] that are contiguous or in channels-last memory."""

    def __init__(self, curve):
        self.number, self.of_result = CURVES.index(curve.name), curve.of_result

    def forward(self, x):
        return fwd(x, self.number)

    def pullback(self, delta, kept):
        return bwd(_as(kept, delta), kept, None, self.number)

    def pullback_onto(self, bent, delta, kept):
        return bwd(_as(kept, delta), kept, _as(kept, bent), self.number)

    def second(self, t, delta, kept):
        return bwd_bwd(_as(kept, t), _as(kept, delta), kept, self.number)


@functools.lru_cache(maxsize=64)
def _kernels(curve):
    return Kernels(curve)


def suited(curve, x):
    """The curve, or its ``Kernels`` where they take x."""
    if curve.name is None or x.dtype is not torch.float32 or not x.is_cpu:
        return curve
    if not _dispatch.takes_vectors(x.device):
        return curve
    is_dense = x.is_contiguous() or _layout.memory_format(x) is not torch.contiguous_format
    return _kernels(curve) if is_dense and x.dim() else curve


def _as(kept, tensor):
    """In its memory; mostly it is, and nothing is called for it."""
    return tensor if tensor.stride() == kept.stride() else _layout.alike(kept, tensor)[1]
