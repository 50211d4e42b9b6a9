"""Adam whose step clips in the same pass."""

from torch.optim.adam import adam

from .. import _library, reference
from ._fused_step import FusedStep

_library.define(
    "adam_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] steps,"
    " Tensor? lr_tensor, Tensor? grad_scale, Tensor? found_inf,"
    " float lr, float beta1, float beta2, float eps, float weight_decay, float clip, bool maximize) -> ()",
    fake=lambda *_: None,
    stem="adam",
)


class Adam(FusedStep, reference.optim.Adam):
    """``torch.optim.Adam`` with weight clipping in its step, and the settings of WGAN-GP by default.

    ::

        g ← ±∇L/scale + weight_decay·w                            − where maximize; scale: a GradScaler's
        m ← β₁·m + (1 − β₁)·g
        v ← β₂·v + (1 − β₂)·g²
        w ← clip(w − lr·m̂/(√v̂ + eps), −clip, clip)                with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) at step t

    One launch per device and step, one pass over w, g, m and v; it pays from two parameters on. Arithmetic is in
    float32 for the half types. Everything is written in place; autograd records nothing, and the parameters' version
    counters advance.

    Args:
        params: as for ``torch.optim``: an iterable of tensors or of groups, each with settings of its own.
        lr: ≥ 0, in units of w; a number or, to change it under a CUDA graph, a 0-d tensor on the device.
        betas: (β₁, β₂), each in [0, 1).
        eps: ≥ 0, in units of g.
        weight_decay: ≥ 0, of the L2 kind.
        clip: c ≥ 0 clamps the group's parameters into [−c, c] in every step, also those without a gradient; None: not.
        maximize: follows the gradient upwards.
        capturable, foreach, fused: taken for torch's sake; the step has one form, which can always be captured.

    ``state_dict`` is torch's, but for a group's ``clip``: each loads the other's. A ``GradScaler`` leaves unscaling and
    skipping to the step, without a synchronisation.

    Raises:
        TypeError: a parameter is not a dense tensor of float64, float32, float16 or bfloat16; clip is not a number.
        ValueError: a setting is out of its range; differentiable is asked for, or amsgrad by a state that is loaded.
        RuntimeError: in ``step``, a gradient is sparse, or the backend asked for cannot run.

    Source: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1; the defaults: Gulrajani et al.
    2017, "Improved Training of Wasserstein GANs", algorithm 1, with lr of their section 5.
    """

    _OP = "adam"

    @staticmethod
    def _states(group):
        return "exp_avg", "exp_avg_sq"

    @staticmethod
    def _settings(group):
        return *group["betas"], group["eps"], group["weight_decay"]

    @staticmethod
    def _reference(group, lists):
        params, grads, exp_avgs, exp_avg_sqs, steps = lists
        beta1, beta2 = group["betas"]
        names = ("lr", "eps", "weight_decay", "maximize")
        adam(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            [],
            steps,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            capturable=steps[0].is_cuda,
            **{name: group[name] for name in names},
        )
