"""Convolutions with 3×3 kernels and stride 1 by minimal filtering: 16 products for four pixels instead of 36.

As in ``_winograd``; two outputs of a filter of three taps take four products (csrc/math/winograd.h).
"""

import torch

from .. import _library
from ._geometry import from_pixels, has_panels, is_fast, pixels, row, size, takes

# The direct kernel's multiplications for one of ours, from which on the rest that we do is paid for, and the channels
# that are read for it, of which each core takes 32.
_EVIDENTLY = {"forward": (1.5, 32), "pullback": (1.5, 32), "weights": (2.0, 64)}


def _same_fake(x, w, bias, turned, rows, columns):
    return x.new_empty(len(x), x.shape[1] + 2 * rows - 2, x.shape[2] + 2 * columns - 2, w.shape[turned])


_library.define_compiled(
    "winograd_same(Tensor x, Tensor w, Tensor? bias, bool turned, int rows, int columns) -> Tensor", fake=_same_fake
)
_library.define_compiled(
    "winograd_same_weights(Tensor x, Tensor delta, Tensor w, int rows, int columns) -> Tensor",
    fake=lambda x, delta, w, rows, columns: torch.empty_like(w),
)
_operators = torch.ops.wgan_kernels


def serve(x, w, how, sweep):
    """Whether a sweep over this convolution of x gains by it: "forward", "pullback" or "weights", the weight gradient.

    float32, ms by PyTorch and so, on two cores of an AMD EPYC with AVX-512; all in channels-last memory::

        batch, channels and size   forward     input gradient   weight gradient
        64, 128 to 128, 32×32      48.1  25.0   47.1  25.4       51.1  35.0
        64, 128 to 128, 16×16      10.8   6.5   10.9   6.5       12.9   8.9
        64, 128 to 128, 8×8        2.63  1.53   2.72  1.59       2.86  2.20
        64, 256 to 256, 8×8        10.4   5.9   10.3   6.2       11.7  10.4
        320, 64 to 64, 14×14       10.3   6.6   10.5   6.6       13.9  11.0
        8, 64 to 64, 14×14         0.29  0.17   0.29  0.17       0.32  0.26
        64, 32 to 32, 28×28        2.45  1.95   2.72  1.87       3.22  5.44, not taken
        64, 64 to 128, 7×7         1.07  0.76   1.05  0.76       0.99  1.23, not taken
    """
    return takes(x, w, (torch.float32,)) and _suits(x.shape, w.shape, how, sweep) and is_fast(x)


def _suits(images, kernel, how, sweep):
    if kernel[2:] != (3, 3) or how.stride != (1, 1) or how.transposed or not {*how.padding} <= {0, 1, 2}:
        return False
    if not has_panels(images, kernel, how) or min(size(images, kernel, how)) < 1:
        return False
    evident, channels = _EVIDENTLY[sweep]
    return kernel[1] >= channels and gain(images[0], *size(images, kernel, how)) >= evident


def gain(batch, height, width):
    """How many multiplications the direct kernel has for one here, for results of that size.

    What it takes to bring a kernel's 16 points into memory is as long as some 30 of them.
    """
    tiles = batch * -(-height // 2) * -(-width // 2)
    return 9 * batch * height * width / (16 * tiles + 16 * 30)


def forward(x, w, b, how):
    return from_pixels(_operators.winograd_same(pixels(x), w, row(b), False, *how.padding))


def pullback(delta, w, x, how):
    around = (2 - p for p in how.padding)
    return from_pixels(_operators.winograd_same(pixels(delta), w, None, True, *around))


def weight_gradient(x, delta, w, how):
    return _operators.winograd_same_weights(pixels(x), pixels(delta), w, *how.padding)
