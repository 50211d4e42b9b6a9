"""Points on the lines between real and fake samples (Gulrajani et al. 2017, algorithm 1, lines 5 and 6)."""

import torch


def interpolate(real, fake, eps=None, *, generator=None):
    """x̂ = ε·real + (1 − ε)·fake, one ε ~ U[0, 1) per sample. real, fake: [B, …]; eps: [B] or [B, 1, …]."""
    dtype = torch.promote_types(real.dtype, fake.dtype)
    if eps is None:
        compute = torch.promote_types(dtype, torch.float32)
        eps = torch.rand(real.shape[0], dtype=compute, device=real.device, generator=generator)
    eps = eps.reshape(-1, *[1] * (real.dim() - 1))
    return (eps * real + (1 - eps) * fake).to(dtype)
