"""RMSprop whose step clips in the same pass."""

from torch.optim.rmsprop import rmsprop

from .. import _library, reference
from ._fused_step import FusedStep

_library.define(
    "rmsprop_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] square_avgs, Tensor(c!)[] grad_avgs,"
    " Tensor(d!)[] momentum_buffers, Tensor(e!)[] steps, Tensor? lr_tensor, Tensor? grad_scale, Tensor? found_inf,"
    " float lr, float alpha, float eps, float weight_decay, float momentum, float clip, bool maximize) -> ()",
    fake=lambda *_: None,
    stem="rmsprop",
)


class RMSprop(FusedStep, reference.optim.RMSprop):
    """``torch.optim.RMSprop`` with weight clipping in its step.

    ::

        g ← ±∇L/scale + weight_decay·w                            − where maximize; scale: a GradScaler's
        v ← α·v + (1 − α)·g²
        m ← α·m + (1 − α)·g;  σ = √(v − m²)                       where centered, else σ = √v
        b ← momentum·b + g/(σ + eps)                              with momentum, else b = g/(σ + eps)
        w ← clip(w − lr·b, −clip, clip)

    One launch per device and step, one pass over w, g and the states; it pays from two parameters on. Arithmetic is in
    float32 for the half types. Everything is written in place; autograd records nothing, and the parameters' version
    counters advance.

    Args:
        params: as for ``torch.optim``: an iterable of tensors or of groups, each with settings of its own.
        lr: ≥ 0, in units of w; a number or, to change it under a CUDA graph, a 0-d tensor on the device.
        alpha: α, the smoothing of the averages, ≥ 0.
        eps: ≥ 0, in units of g.
        momentum: ≥ 0; 0: none, and no buffer.
        centered: divides by the standard deviation instead of the root of the mean square.
        weight_decay: ≥ 0, of the L2 kind.
        clip: c ≥ 0 clamps the group's parameters into [−c, c] in every step, also those without a gradient; None: not.
        maximize: follows the gradient upwards.
        capturable, foreach: taken for torch's sake; the step has one form, which can always be captured.

    ``state_dict`` is torch's, but for a group's ``clip``: each loads the other's. A ``GradScaler`` leaves unscaling and
    skipping to the step, without a synchronisation.

    Raises:
        TypeError: a parameter is not a dense tensor of float64, float32, float16 or bfloat16; clip is not a number.
        ValueError: a setting is out of its range; differentiable is asked for.
        RuntimeError: in ``step``, a gradient is sparse, or the backend asked for cannot run.

    Source: Hinton 2012, "Neural Networks for Machine Learning", lecture 6e; centered: Graves 2013, equations 38 to 45;
    with a clip: Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", algorithm 1, lines 6 and 7.
    """

    _OP = "rmsprop"

    @staticmethod
    def _states(group):
        return (
            "square_avg",
            "grad_avg" if group["centered"] else None,
            "momentum_buffer" if group["momentum"] > 0 else None,
        )

    @staticmethod
    def _settings(group):
        return group["alpha"], group["eps"], group["weight_decay"], group["momentum"]

    @staticmethod
    def _reference(group, lists):
        params, grads, square_avgs, grad_avgs, momentum_buffers, steps = lists
        names = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
        rmsprop(
            params,
            grads,
            square_avgs,
            grad_avgs,
            momentum_buffers,
            steps,
            capturable=steps[0].is_cuda,
            **{name: group[name] for name in names},
        )
