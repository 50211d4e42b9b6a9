"""Gradient penalties by PyTorch's own double backward: where to differentiate, and what is asked of the gradient."""

import torch

from .interpolate import interpolate
from .norm_penalty import gradient_norm_penalty


def input_gradient(critic, x):
    """∇ₓ Σ critic(x), itself differentiable with respect to the critic's parameters."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return grad


def gradient_penalty(critic, real, fake, *, eps=None, target=1.0, one_sided=False, generator=None):
    """mean (‖∇critic(x̂)‖₂ − target)² at x̂ = ε·real + (1 − ε)·fake (Gulrajani et al. 2017, equation 3)."""
    x_hat = interpolate(real.detach(), fake.detach(), eps, generator=generator)
    return gradient_norm_penalty(input_gradient(critic, x_hat), target=target, one_sided=one_sided)


def r1_penalty(critic, real):
    """½·mean ‖∇critic(real)‖² (Mescheder et al. 2018, equation 9)."""
    return gradient_norm_penalty(input_gradient(critic, real), target=0.0) / 2


def r2_penalty(critic, fake):
    """½·mean ‖∇critic(fake)‖² (Mescheder et al. 2018, equation 10)."""
    return gradient_norm_penalty(input_gradient(critic, fake), target=0.0) / 2


def dragan_penalty(critic, real, *, noise=None, scale=0.5, target=1.0, one_sided=False, generator=None):
    """mean (‖∇critic(x̂)‖₂ − target)² at x̂ = real + scale·std(real)·noise, noise ~ U[0, 1) (Kodali et al. 2017)."""
    real = real.detach()
    if noise is None:
        noise = torch.rand(real.shape, dtype=real.dtype, device=real.device, generator=generator)
    x_hat = real + scale * real.std() * noise
    return gradient_norm_penalty(input_gradient(critic, x_hat), target=target, one_sided=one_sided)
