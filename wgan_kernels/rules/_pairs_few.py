"""Convolutions in bfloat16 from two to four channels, a critic's first, or to them, a generator's last: by products of
pairs, as ``_pairs`` has them.

All sweeps are those of a convolution from a few channels. Of a pixel of its result all that it sees, its patch, is some
dozen numbers, of which channels are pairs::

    y = W·patch + b        ∂W = Σ δ·patchᵀ        ∂x = Σ over the pixels that see x of Wᵀδ

The weight gradient has pairs of samples. A convolution to a few channels is the third of these: if it is transposed by
definition, if its stride is 1 with the kernel turned around.
"""

import math

import torch

from .. import _library
from . import _columns, _pairs
from ._geometry import PANEL, from_pixels, is_fast, pixels, row, size, takes

FEW = (2, 3, 4)  # of one channel half of each pair would be nothing
_SMALL = 2048  # pixels of an image, up to which its patches are in the cache


def _down_fake(large, w, bias, height, width, geometry):
    return large.new_empty(len(large), height, width, len(w))


def _up_fake(small, w, bias, height, width, geometry):
    return small.new_empty(len(small), height, width, w.shape[1])


def _weights_fake(large, small, w, geometry):
    return torch.empty_like(w)


_library.define_compiled(
    "pairs_few(Tensor large, Tensor w, Tensor? bias, int height, int width, int[] geometry) -> Tensor", fake=_down_fake
)
_library.define_compiled(
    "pairs_few_up(Tensor small, Tensor w, Tensor? bias, int height, int width, int[] geometry) -> Tensor", fake=_up_fake
)
_library.define_compiled(
    "pairs_few_weights(Tensor large, Tensor small, Tensor w, int[] geometry) -> Tensor", fake=_weights_fake
)
_operators = torch.ops.wgan_kernels


def serve(x, w, how, sweep):
    """Whether a sweep over this convolution of x gains by it: "forward", "pullback" or "weights", the weight gradient.

    ms by PyTorch and so, on two cores of an AMD EPYC; all in channels-last memory::

        batch, channels and size, kernel         forward      input gradient   weight gradient
        192, 4 of 14×14 to 32, 3×3               0.23  0.13     0.53  0.22       0.28  0.14
        320, 4 of 14×14 to 64, 3×3               0.52  0.39     1.70  0.74       0.72  0.49
        1, 4 of 14×14 to 32, 3×3                 0.03  0.01     0.03  0.02       0.04  0.01
        64, 4 of 32×32 to 64, 4×4 of stride 2    0.21  0.18     1.29  0.28       0.37  0.24
        64, 2 of 28×28 to 64, 5×5 of stride 2    0.16  0.12     1.37  0.25       0.22  0.13
        64, 4 of 28×28 to 128, 7×7               3.38  3.17    11.1   4.9        3.77  3.76
        64, 3 of 32×32 to 64, 3×3                0.52  0.43     1.67  0.58       0.61  0.39
        64, 3 of 32×32 to 64, 4×4 of stride 2    0.23  0.21     1.45  0.27       0.29  0.17
        16, 3 of 64×64 to 64, 4×4 of stride 2    not taken      1.17  0.29       0.28  0.17
        4, 3 of 128×128 to 64, 4×4 of stride 2   not taken      1.14  0.39       0.31  0.19
        320, 64 of 14×14 to 4, 3×3               1.67  0.74     0.52  0.39       0.72  0.49
        not taken: 4, 3 of 128×128, as above     0.24  0.28
    """
    if not takes(x, w, (torch.bfloat16,)) or not _suits(x.shape, w.shape, how, sweep):
        return False
    return _pairs.has_instruction() and is_fast(x)


def _suits(images, kernel, how, sweep):
    if len(images) != 4 or how.dilation != (1, 1) or how.groups != 1 or not images[0]:
        return False
    if kernel[2:] == (1, 1) or images[1] != kernel[not how.transposed] or min(size(images, kernel, how)) < 1:
        return False
    large = images[2:] if _is_from_few(kernel, how) else size(images, kernel, how)
    if sweep == ("forward" if _is_from_few(kernel, how) else "pullback") and math.prod(large) > _SMALL:
        return False
    if _is_turned(kernel, how):
        is_inside = all(p < taps for p, taps in zip(how.padding, kernel[2:], strict=True))
        return kernel[0] in FEW and not kernel[1] % PANEL and how.stride == (1, 1) and is_inside
    return kernel[1] in FEW and not kernel[0] % PANEL


def _is_from_few(kernel, how):
    return not how.transposed and kernel[1] in FEW and not kernel[0] % PANEL


def _is_turned(kernel, how):
    return not how.transposed and not _is_from_few(kernel, how)


def forward(x, w, b, how):
    run = _operators.pairs_few if _is_from_few(w.shape, how) else _operators.pairs_few_up
    return _image(run, x, w, row(b), size(x.shape, w.shape, how), how)


def pullback(delta, w, x, how):
    run = _operators.pairs_few_up if _is_from_few(w.shape, how) else _operators.pairs_few
    return _image(run, delta, w, None, x.shape[2:], how)


def weight_gradient(x, delta, w, how):
    if _is_from_few(w.shape, how):
        x, delta = delta, x
    kernel, numbers = _from_few(w, how)
    grad = _operators.pairs_few_weights(pixels(delta), pixels(x), kernel, numbers)
    return _columns.turn(grad) if _is_turned(w.shape, how) else grad


def _image(run, image, w, b, size, how):
    kernel, numbers = _from_few(w, how)
    return from_pixels(run(pixels(image), kernel, b, *size, numbers))


def _from_few(w, how):
    """(kernel, stride and padding) of the convolution from a few channels whose sweeps this one's are."""
    if _is_turned(w.shape, how):
        w, how = _columns.turn(w), _columns.transposed(w.shape, how)
    return w, [*how.stride, *how.padding]
