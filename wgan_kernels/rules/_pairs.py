"""Convolutions in bfloat16 by products of pairs: input gradients of a stride, which are transposed convolutions, too,
and weight gradients, each as a direct sum in registers.

An instruction of AVX-512 BF16 adds two products to each of sixteen sums. The input gradient has pairs of channels::

    ∂x[p] = Σ over taps that meet p, over pairs (o, o+1)    δ[q, o]·w[o] + δ[q, o+1]·w[o+1]

and of a stride s every s-th pixel meets the same taps. The weight gradient has pairs of samples, of which each pixel's
values are laid side by side, so that every tap finds them as they lie::

    ∂w[o, c] = Σ over pixels, over pairs (b, b+1)            δ_b[q, o]·x_b[p, c] + δ_{b+1}[q, o]·x_{b+1}[p, c]
"""

import functools

import torch

from .. import _library
from ._geometry import from_pixels, has_panels, is_fast, pixels, row, size, takes


def _up_fake(small, w, bias, height, width, geometry):
    return small.new_empty(len(small), height, width, w.shape[1])


def _weights_fake(large, small, w, geometry):
    return torch.empty_like(w)


_library.define_compiled(
    "pairs_up(Tensor small, Tensor w, Tensor? bias, int height, int width, int[] geometry) -> Tensor", fake=_up_fake
)
_library.define_compiled(
    "pairs_weights(Tensor large, Tensor small, Tensor w, int[] geometry) -> Tensor", fake=_weights_fake
)
_operators = torch.ops.wgan_kernels
_SAMPLES = 4  # from which on there are pairs of them for two threads


def serve(x, w, how, sweep):
    """Whether a sweep over this convolution of x gains by it: "forward", "pullback" or "weights", the weight gradient.

    ms by PyTorch and so, on two cores of an AMD EPYC; all in channels-last memory::

        batch, channels and size, kernel            input gradient   weight gradient
        192, 32 of 14×14 to 64, 4×4 of stride 2       2.01  1.02        1.94  1.04
        64, 64 of 14×14 to 128, 4×4 of stride 2       1.45  1.13        3.19  2.28
        64, 128 of 28×28 to 128, 4×4 of stride 2     10.9   9.1        12.5   9.9
        48, 128 of 16×16 to 256, 4×4 of stride 2      5.30  4.36        7.44  4.90
        192, 64 of 7×7 to 128, 3×3 of stride 2        0.87  0.56        2.24  0.72
        4, 64 of 14×14 to 128, 4×4 of stride 2        0.16  0.10        0.30  0.22
        64, 64 of 28×28 to 64, 5×5 of stride 2        4.57  4.14        4.66  3.59
        64, 64 of 14×14 to 64, 3×3                    not taken         1.63  1.24
        64, 128 of 32×32 to 128, 3×3                  not taken        31.2  25.1
        64, 512 of 4×4 to 512, 3×3                    not taken        10.2   7.2
        not taken:
        64, 256 of 8×8 to 256, 1×1                                      0.99  1.16
        2, 32 of 64×64 to 64, 4×4 of stride 2         0.24  0.18        0.28  0.33
        320, 64 of 14×14 to 64, 3×3                   5.77  6.79
    """
    return takes(x, w, (torch.bfloat16,)) and _suits(x.shape, w.shape, how, sweep) and has_instruction() and is_fast(x)


@functools.cache
def has_instruction():
    """And no better one, which PyTorch's kernels have."""
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def _suits(images, kernel, how, sweep):
    if not has_panels(images, kernel, how) or min(size(images, kernel, how)) < 1:
        return False
    if sweep == "weights":
        return images[0] >= _SAMPLES and kernel[2:] != (1, 1)
    return min(how.stride) > 1 and (sweep == "forward") == how.transposed


def forward(x, w, b, how):
    return _up(x, w, row(b), size(x.shape, w.shape, how), how)


def pullback(delta, w, x, how):
    return _up(delta, w, None, x.shape[2:], how)


def weight_gradient(x, delta, w, how):
    large, small = (delta, x) if how.transposed else (x, delta)
    return _operators.pairs_weights(pixels(large), pixels(small), w, [*how.stride, *how.padding])


def _up(small, w, b, size, how):
    return from_pixels(_operators.pairs_up(pixels(small), w, b, *size, [*how.stride, *how.padding]))
