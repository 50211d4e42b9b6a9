"""The sweeps of a gradient penalty over y_l = φ_l(W_l y_{l−1} + b_l), φ_l(z) = z where z > 0 and slope·z elsewhere, or
one of ``_smooth.CURVES``: all layers of a block of samples at once, by two kernels, of which a step is made.

::

    begin   y_l, the scores; δ_l = φ_l′∘d_l, d_l = W_{l+1}ᵀ δ_{l+1}, the gradient W_1ᵀ δ_1 from one sample on
    penalty or the same without scores, and with the gradient's penalty and its derivative instead of the gradient, of
            which some features in a row count
    step    begin, the gradient's penalty and finish for a critic's loss, one_pass/losses.py
    finish  t_l = φ_l′∘u_l, u_l = W_l t_{l−1}; Σ δ_l y_{l−1}ᵀ, with t for y where the penalty looks
            where a layer is curved also q_l = φ_l″∘d_l∘u_l + φ_l′∘(W_{l+1}ᵀ q_{l+1}); Σ q_l y_{l−1}ᵀ
"""

import torch

from .. import _dispatch, _library

_PANEL = 32  # samples that the kernels take at once
_ENOUGH, _FEW = 12, 250_000  # samples; weights a sample, where it is fewer of these


def _kept(x, weights, curves, split):
    blocks, shape = -(-len(x) // _PANEL), (sum(len(w) for w in weights), _PANEL)
    if not any(curves):
        return x.new_empty(blocks, *shape), x.new_empty(blocks, *shape)
    return x.new_empty(2 * blocks, *shape), x.new_empty(2 * blocks - split // _PANEL, *shape)


def _begin_fake(x, seed, weights, biases, slopes, curves, split, asked):
    return torch.empty_like(seed), x.new_empty(len(x) - asked, x.shape[1]), *_kept(x, weights, curves, split)


def _penalty_fake(x, weights, biases, slopes, curves, target, one_sided, first, width):
    return x.new_empty(()), torch.empty_like(x), x.new_empty(len(x)), *_kept(x, weights, curves, 0)


def _finish_fake(x, t, values, deltas, weights, slopes, curves):
    biases = [w.new_empty(len(w)) for w in weights] if len(x) > len(t) or any(curves) else []
    return [torch.empty_like(w) for w in weights] + biases


def _step_fake(x, weights, biases, slopes, curves, target, one_sided, weight, factor):
    return x.new_empty(4), [torch.empty_like(w) for w in weights] + [w.new_empty(len(w)) for w in weights]


_library.define_compiled(
    "perceptron_begin(Tensor x, Tensor seed, Tensor[] weights, Tensor?[] biases, float[] slopes, int[] curves,"
    " int split, int asked) -> (Tensor, Tensor, Tensor, Tensor)",
    fake=_begin_fake,
)
_library.define_compiled(
    "perceptron_penalty(Tensor x, Tensor[] weights, Tensor?[] biases, float[] slopes, int[] curves, float target,"
    " bool one_sided, int first, int width) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    fake=_penalty_fake,
)
_library.define_compiled(
    "perceptron_finish(Tensor x, Tensor t, Tensor values, Tensor deltas, Tensor[] weights, float[] slopes,"
    " int[] curves) -> Tensor[]",
    fake=_finish_fake,
)
_library.define_compiled(
    "perceptron_step(Tensor x, Tensor[] weights, Tensor?[] biases, float[] slopes, int[] curves, float target,"
    " bool one_sided, float weight, float factor) -> (Tensor, Tensor[])",
    fake=_step_fake,
)
begin = torch.ops.wgan_kernels.perceptron_begin.default
penalty = torch.ops.wgan_kernels.perceptron_penalty.default
finish = torch.ops.wgan_kernels.perceptron_finish.default
step = torch.ops.wgan_kernels.perceptron_step.default


def serve(x, width, weights, biases):
    """Whether the kernels take samples x, of which the first layer reads so many numbers each, and gain by it.

    A whole penalty, its backward included, ms by eager autograd, by a program of the layers and by these; two cores
    of an AMD EPYC with AVX-512::

        widths, samples             eager   layers   these
        784, 512, 512, 512, 1; 64     5.6      3.7     2.0
        2, 512, 512, 512, 1; 256     10.7      7.2     3.6
        784, 1024, 1024, 1024, 1; 64 18.1     12.4     5.2
        784, 512, 512, 512, 1; 16     2.0      1.4     1.4
        784, 512, 512, 512, 1; 4      2.4      1.5     1.3
        784, 512, 512, 512, 1; 1      1.5      0.8     1.2
        2, 256, 256, 256, 1; 1       0.66     0.56    0.50
        2, 8, 8, 1; 1                0.20     0.20    0.18

    and with SiLU::

        2, 512, 512, 512, 1; 4        1.4      1.3     1.0
        2, 512, 512, 512, 1; 1       0.75     0.82    0.93
        2, 64, 64, 64, 1; 1          0.41     0.45    0.22

    With AVX2, in whose vectors few samples fill more: 784, 512, 512, 512, 1; 8: 4.5 by eager autograd, 2.8 by these;
    4: 5.8, 4.1; 1: 3.6, and 2.7 by the layers.
    """
    if not x.is_cpu or x.dim() < 2 or width != weights[0].shape[1]:
        return False
    # Each sample takes as long as a vector of them.
    if len(x) < _ENOUGH and sum(weight.numel() for weight in weights) > _FEW * len(x):
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if not _dispatch.takes_vectors(x.device):
        return False
    return x.dtype is torch.float32 and all(map(_is_plain, weights, biases))


def _is_plain(weight, bias):
    if weight.dtype is not torch.float32 or not (weight.is_contiguous() and weight.requires_grad and weight.numel()):
        return False
    if bias is None:
        return True
    fits = bias.shape == weight.shape[:1] and bias.is_contiguous()
    return fits and bias.dtype is torch.float32 and not bias.is_neg()
