"""Convolutions from a few channels, a critic's first on images: forward and weight gradient by the patches of pixels.

Of a pixel of the result all that it sees, its patch, is a few dozen numbers::

    y = W·patch + b        ∂W = Σ δ·patchᵀ

Sums of some ten pixels, or of some ten taps, by 32 channels stay in registers; patches are read where they lie. The
pullback is a convolution to a few channels: ``_columns``.
"""

import math

import torch

from .. import _dispatch, _library
from ._geometry import PANEL, along, from_pixels, pixels, row, size, takes

FEW = 4  # channels
_MOST = {torch.float32: 36, torch.bfloat16: 25}  # entries of a patch, up to which PyTorch's kernels are slower


def _forward_fake(x, w, bias, geometry):
    axes = zip(x.shape[2:], w.shape[2:], geometry[:2], geometry[2:4], geometry[4:], strict=True)
    return x.new_empty(len(x), *(along(*axis) for axis in axes), len(w))


_library.define_compiled(
    "patches_forward(Tensor x, Tensor w, Tensor? bias, int[] geometry) -> Tensor", fake=_forward_fake
)
_library.define_compiled(
    "patches_weights(Tensor x, Tensor delta, Tensor w, int[] geometry) -> Tensor",
    fake=lambda x, delta, w, geometry: torch.empty_like(w),
)
_operators = torch.ops.wgan_kernels


def serve(x, w, how, sweep):
    """Whether a sweep over this convolution of x, in channels-last memory, gains by it: "forward" or "weights".

    ms by PyTorch and so, on two cores of an AMD EPYC with AVX-512; weight gradients in brackets::

        batch, channels and size, kernel        float32                    bfloat16
        64, 1 of 28×28 to 32, 3×3 of stride 2   0.11 0.04 (0.07 0.04)      0.10 0.04 (0.08 0.04)
        192, the same                           0.27 0.09 (0.12 0.09)      0.23 0.10 (0.18 0.09)
        4, the same                             0.03 0.01 (0.04 0.01)      0.03 0.01 (0.04 0.01)
        64, 1 of 28×28 to 64, 4×4 of stride 2   0.16 0.09 (0.13 0.10)      0.13 0.10 (0.17 0.10)
        64, 1 of 28×28 to 64, 5×5 of stride 2   0.19 0.13 (0.15 0.14)      0.14 0.13 (0.20 0.14)
        64, 3 of 32×32 to 64, 3×3 of stride 1   0.87 0.74 (0.76 0.71)      0.50 0.60 (0.53 0.60), not taken
        192, 4 of 14×14 to 32, 3×3 of stride 1  0.32 0.23 (0.26 0.26)      0.23 0.24 (0.25 0.24), not taken
        16, 3 of 64×64 to 64, 4×4 of stride 2   0.28 0.28 (0.30 0.26), not taken
        1, the same                             0.05 0.07 (0.05 0.07), not taken
    """
    if sweep == "pullback" or not takes(x, w, _MOST) or not _suits(x.shape, w.shape, how, _MOST[x.dtype]):
        return False
    return x.stride(1) == 1 and _dispatch.takes_vectors(x.device)


def _suits(images, kernel, how, most):
    if len(images) != 4 or kernel[1] > FEW or how.transposed or how.groups != 1 or images[1] != kernel[1]:
        return False
    if kernel[0] % PANEL or not 1 < math.prod(kernel[1:]) <= most or min(images) < 1:
        return False
    return min(size(images, kernel, how)) > 0


def forward(x, w, b, how):
    return from_pixels(_operators.patches_forward(x, w, row(b), _numbers(how)))


def weight_gradient(x, delta, w, how):
    return _operators.patches_weights(x, pixels(delta), w, _numbers(how))


def _numbers(how):
    return [*how.stride, *how.padding, *how.dilation]
