"""Convolutions with 4×4 or 3×3 kernels and stride 2 by minimal filtering: down to 4/9 of the multiplications.

Each of four phases of such a convolution is one with a 2×2 kernel on every second pixel, and three outputs of a filter
of two taps take four products instead of six, two take three (csrc/math/winograd.h). In two dimensions that is 16/36 of
the arithmetic, on whole tiles. Of a 3×3 kernel a phase has one or two taps in each dimension: 49/81. Sums are taken in
another order; the rounding error is the direct one's.

Source: Winograd 1980, "Arithmetic Complexity of Computations", chapter 5; Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks", section 4.
"""

import torch

from .. import _library
from ._geometry import along, from_pixels, has_panels, is_fast, pixels, row, size, takes

# The direct kernel's multiplications for one of ours, from which on the rest that we do is paid for, by a kernel's size
# and by what is made: see ``gain`` and ``serve``.
_EVIDENTLY = {
    4: {"small": 1.45, "large": 1.45, "weights": 1.45},
    3: {"small": 1.37, "large": 1.1, "weights": 1.1},
}


def _down_fake(large, w, bias, rows, columns):
    axes = zip(large.shape[1:3], w.shape[2:], (rows, columns), strict=True)
    return large.new_empty(len(large), *(along(n, taps, 2, p) for n, taps, p in axes), len(w))


def _up_fake(small, w, bias, height, width, rows, columns):
    return small.new_empty(len(small), height, width, w.shape[1])


def _weights_fake(large, small, w, rows, columns):
    return torch.empty_like(w)


_library.define_compiled(
    "winograd_down(Tensor large, Tensor w, Tensor? bias, int rows, int columns) -> Tensor", fake=_down_fake
)
_library.define_compiled(
    "winograd_up(Tensor small, Tensor w, Tensor? bias, int height, int width, int rows, int columns) -> Tensor",
    fake=_up_fake,
)
_library.define_compiled(
    "winograd_weights(Tensor large, Tensor small, Tensor w, int rows, int columns) -> Tensor", fake=_weights_fake
)
_operators = torch.ops.wgan_kernels


def serve(x, w, how, sweep):
    """Whether a sweep over this convolution of x gains by it: "forward", "pullback" or "weights", the weight gradient.

    float32, ms by PyTorch and so, on two cores of an AMD EPYC with AVX-512; all in channels-last memory::

        batch, channels and size        forward     input gradient   weight gradient
        4×4:
        64, 128 of 28×28 to 128 of 14×14  28.5  17.4   30.4  18.3       32.8  22.1
        64, 128 of 14×14 to 128 of 7×7     7.2   5.3    7.9   5.2        8.8   6.0
        48, 64 of 32×32 to 128 of 16×16   14.5   9.1   14.9   9.9       15.7  10.8
        48, 128 of 16×16 to 256 of 8×8    13.6   9.3   14.8   9.1       16.2  11.5
        64, 64 of 14×14 to 64 of 7×7       1.8   1.2    2.0   1.2        1.9   1.3
        not taken, of a gain below 1.45:
        48, 256 of 8×8 to 512 of 4×4      13.2  13.8   15.1  11.8       19.3  16.3
        1, 128 of 28×28 to 128 of 14×14    0.6   0.7    0.5   0.4        0.7   0.6
        3×3, on another day, when the machine was twice as fast:
        64, 128 of 28×28 to 128 of 14×14   8.7   7.0    9.3   7.6       11.8   9.6
        64, 32 of 14×14 to 64 of 7×7      0.30  0.23   0.41  0.26       0.34  0.30
        64, 64 of 16×16 to 128 of 8×8     1.29  1.17   1.44  1.33       1.67  1.27
        192, 64 of 7×7 to 128 of 4×4      0.76  0.79   1.09  0.59       1.14  0.91
    """
    return takes(x, w, (torch.float32,)) and _suits(x.shape, w.shape, how, sweep) and is_fast(x)


def _suits(images, kernel, how, sweep):
    if kernel[2:] not in ((4, 4), (3, 3)) or how.stride != (2, 2) or not has_panels(images, kernel, how):
        return False
    if not {*how.padding} <= {0, 1, 2, 3} or not {*how.output_padding} <= {0, 1} or min(size(images, kernel, how)) < 1:
        return False
    smaller = images[2:] if how.transposed else size(images, kernel, how)
    made = "weights" if sweep == "weights" else "large" if (sweep == "forward") == how.transposed else "small"
    return gain(images[0], *smaller, kernel[2]) >= _EVIDENTLY[kernel[2]][made]


def gain(batch, height, width, taps=4):
    """How many multiplications the direct kernel has for one here, for smaller images of that size.

    To a pair of channels belong as many a pixel as the kernel has taps, or one for each point of its tile in each
    phase. What it takes to bring a kernel's 64 points into memory is as long as some 30 of them.
    """
    return taps**2 * batch * height * width / (batch * _points(height, taps) * _points(width, taps) + 64 * 30)


def _points(size, taps):
    """Of an axis in tiles of three, then of two pixels: one more each for a filter of two taps, as many for one."""
    twos = 1 if size == 1 else -size % 3
    threes = max(0, (size - 2 * twos) // 3)
    return 8 * threes + 6 * twos - (threes + twos if taps == 3 else 0)


def forward(x, w, b, how):
    return _to_small(x, w, b, how) if not how.transposed else _to_large(x, w, b, size(x.shape, w.shape, how), how)


def pullback(delta, w, x, how):
    return _to_small(delta, w, None, how) if how.transposed else _to_large(delta, w, None, x.shape[2:], how)


def weight_gradient(x, delta, w, how):
    large, small = (delta, x) if how.transposed else (x, delta)
    return _operators.winograd_weights(pixels(large), pixels(small), w, *how.padding)


def _to_small(large, w, b, how):
    return from_pixels(_operators.winograd_down(pixels(large), w, row(b), *how.padding))


def _to_large(small, w, b, size, how):
    return from_pixels(_operators.winograd_up(pixels(small), w, row(b), *size, *how.padding))
