"""Gradient penalties under any critic: where to differentiate, and what is asked of the gradient."""

import torch

from . import _checks
from ._heap import keep_freed_memory
from .one_pass import penalty as by_program
from .ops.interpolate import interpolate
from .ops.norm_penalty import asked, gradient_norm_penalty
from .second_order import second_order


def gradient_penalty(critic, real, fake, *, eps=None, target=1.0, one_sided=False, generator=None):
    """The penalty of WGAN-GP: the critic's gradient between real and fake samples should have norm ``target``.

    ::

        mean_i (‖∇critic(x̂_i)‖₂ − target)²,    x̂_i = ε_i·real_i + (1 − ε_i)·fake_i,    ε_i ~ U[0, 1)

    Unweighted: give it to ``critic_loss(real_scores, fake_scores, penalty, weight=10.0)``. An ordinary ``.backward()``
    of the result reaches the critic's parameters; real and fake are detached. Under ``torch.no_grad()`` it is
    evaluated without a graph. On a CPU a critic of torch's own layers is run as one node of the graph, for images in
    channels-last memory, if it is an ``nn.Sequential`` or its forward does nothing but say what the samples go through:
    it is then run once, by a copy of the critic without samples, and again when it, or a plain attribute of the critic,
    has changed, or samples of another shape come where it asks for that. So is a function that calls such critics,
    ``lambda x: critic(x, labels)``. Any other critic is called, once, within ``second_order()``. Either way running
    statistics and spectral norm move once. Derivatives beyond the second are by its calls; these, and a second backward
    of a graph that was kept, run the critic again, with what it drew and computed then, and raise RuntimeError where
    its mode, its layers, which parameters it has, or for the former its labels, are others than they were.

    Args:
        critic: any callable from a tensor [B, …] to a tensor of scores of any shape. A layer that couples the samples
            of a batch (BatchNorm) makes ∇critic(x̂_i) something else than the paper's: use LayerNorm or none.
        real, fake: [B, …], the same shape and device.
        eps: [B] or [B, 1, …]; None draws it, from ``generator`` if given.
        target: the norm asked for, in scores per unit of x.
        one_sided: leaves norms below the target alone.

    Returns:
        The penalty: [].

    Raises:
        TypeError: critic is not callable or does not return a tensor; real, fake or eps is not a floating-point tensor.
        ValueError: shapes differ; eps is not one value per sample; target is negative or NaN.
        RuntimeError: devices differ, the scores do not depend on the critic's input, the critic is under FSDP, or
            ``torch.inference_mode()`` is on.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3 and algorithm 1.
    """
    target = asked(target, one_sided)
    with torch.no_grad():
        x_hat = interpolate(real, fake, eps, generator=generator)
    return _penalty(critic, x_hat, target, one_sided)


def r1_penalty(critic, real):
    """The penalty R1: no gradient at real samples.

    ::

        ½·mean_i ‖∇critic(real_i)‖²

    Args, errors and derivatives as in ``gradient_penalty``; the usual weight is γ = 1 to 10.

    Source: Mescheder, Geiger, Nowozin 2018, "Which Training Methods for GANs do actually Converge?", equation 9.
    """
    return _zero_centred(critic, "real", real)


def r2_penalty(critic, fake):
    """The penalty R2: no gradient at generated samples.

    ::

        ½·mean_i ‖∇critic(fake_i)‖²

    Args, errors and derivatives as in ``gradient_penalty``; fake is detached.

    Source: Mescheder, Geiger, Nowozin 2018, equation 10.
    """
    return _zero_centred(critic, "fake", fake)


def dragan_penalty(critic, real, *, noise=None, scale=0.5, target=1.0, one_sided=False, generator=None):
    """The penalty of DRAGAN: a gradient of norm ``target`` around real samples.

    ::

        mean_i (‖∇critic(x̂_i)‖₂ − target)²,    x̂ = real + scale·std(real)·noise,    noise ~ U[0, 1)

    Args:
        critic, real, target, one_sided: as in ``gradient_penalty``.
        noise: like real; None draws it, from ``generator`` if given.
        scale: the reach of the noise, in standard deviations of the whole batch; that of a single element is 0, as in
            their code.

    Raises: as ``gradient_penalty``; ValueError where noise has another shape than real or is given with a generator.

    Source: Kodali et al. 2017, "On Convergence and Stability of GANs", algorithm 1, with the noise of their code.
    """
    _checks.floating("real", real)
    _checks.batched("real", real)
    _checks.generator(generator, real.device)
    scale, target = _checks.number("scale", scale), asked(target, one_sided)
    real = real.detach()
    if noise is None:
        noise = torch.rand(real.shape, dtype=real.dtype, device=real.device, generator=generator)
    else:
        _checks.floating("noise", noise)
        _checks.same_shape("noise", noise, "real", real)
        _checks.same_device("noise", noise, "real", real)
        if generator is not None:
            raise ValueError("generator: expected None where noise is given, since nothing is drawn")
    std = 0.0 if real.numel() == 1 else real.std()  # torch divides by N − 1
    return _penalty(critic, real + scale * std * noise, target, one_sided)


def _zero_centred(critic, name, samples):
    _checks.floating(name, samples)
    _checks.batched(name, samples)
    return _penalty(critic, samples, target=0.0, one_sided=False) / 2


def _penalty(critic, x, target, one_sided):
    if not torch.compiler.is_compiling():
        _check_mode()
        if x.is_cpu:
            keep_freed_memory()
    penalty, _ = penalty_and_norms(critic, x, target=target, one_sided=one_sided)
    return penalty if torch.is_grad_enabled() else penalty.detach()


def penalty_and_norms(critic, x, **how):
    """(``gradient_norm_penalty(∇ₓ Σ critic(x), **how)``: [], a function that returns the gradients' norms: [B])"""
    x = x.detach()
    made = by_program(critic, x, lambda x: gradient_norm_penalty(input_gradient(critic, x), **how), **how)
    if made is not None:
        return made[0], lambda: made[1]
    gradient = input_gradient(critic, x)
    return gradient_norm_penalty(gradient, **how), lambda: _norms(gradient.detach())


def _norms(gradient):
    return torch.linalg.vector_norm(gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None], dim=1)


def input_gradient(critic, x):
    """∇ₓ Σ critic(x): [B, …], by the critic's calls; a part of its graph wherever gradients are enabled."""
    if not callable(critic):
        raise TypeError(f"critic: expected a callable Tensor → Tensor, got {type(critic).__name__}")
    _checks.unsharded("critic", critic)
    if not torch.compiler.is_compiling():
        _check_mode()
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        with second_order():
            scores = _checks.scores(critic(x))
        grad = None
        if scores.requires_grad:
            ones = torch.ones_like(scores)
            (grad,) = torch.autograd.grad(scores, x, ones, create_graph=create_graph, allow_unused=True)
        x.requires_grad_(False)  # nobody sees it: the penalty's own backward ends before it
    if grad is None:
        raise RuntimeError(
            "critic: its scores do not depend on its input, so there is no gradient to penalise "
            "(is the input detached, or the critic run under no_grad?)"
        )
    return grad


def _check_mode():
    if torch.is_inference_mode_enabled():
        raise RuntimeError("inference mode is on, in which there are no gradients: leave it, or use torch.no_grad()")
