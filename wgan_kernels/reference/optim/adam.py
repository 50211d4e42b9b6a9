"""Adam (Kingma & Ba 2015, algorithm 1), then the clip of Arjovsky et al. 2017."""

import torch

from ._clip_after_step import ClipAfterStep


class Adam(ClipAfterStep, torch.optim.Adam):
    """m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²;  w ← clip(w − lr·m̂ / (√v̂ + eps), −clip, clip)."""

    def __init__(
        self,
        params,
        lr=1e-4,
        betas=(0.0, 0.9),
        eps=1e-8,
        weight_decay=0,
        *,
        clip=None,
        maximize=False,
        capturable=False,
        foreach=None,
        fused=None,
        differentiable=False,
    ):
        super().__init__(
            params,
            clip=clip,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
            capturable=capturable,
            foreach=foreach,
            fused=fused,
            differentiable=differentiable,
        )
