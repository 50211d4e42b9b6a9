"""The gradient-norm penalty (Gulrajani et al. 2017, equation 3; one-sided: their section 4)."""

import torch


def gradient_norm_penalty(grad, *, target=1.0, one_sided=False, reduction="mean"):
    """reduce over i of (‖grad_i‖₂ − target)², or max(0, ‖grad_i‖₂ − target)² one-sided. grad: [B, …]."""
    norm = torch.linalg.vector_norm(grad.unsqueeze(1).flatten(1), dim=1)
    excess = norm - target
    if one_sided:
        excess = excess.clamp(min=0)
    penalty = excess.square()
    if reduction == "none":
        return penalty
    return penalty.mean() if reduction == "mean" else penalty.sum()
