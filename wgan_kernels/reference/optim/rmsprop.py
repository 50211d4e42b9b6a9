"""RMSprop (Hinton 2012, lecture 6e; centered: Graves 2013, equations 38 to 45), then Arjovsky et al.'s clip."""

import torch

from ._clip_after_step import ClipAfterStep


class RMSprop(ClipAfterStep, torch.optim.RMSprop):
    """v ← α·v + (1 − α)·g²;  w ← clip(w − lr·g / (√v + eps), −clip, clip)."""

    def __init__(
        self,
        params,
        lr=5e-5,
        alpha=0.99,
        eps=1e-8,
        momentum=0,
        centered=False,
        weight_decay=0,
        *,
        clip=None,
        maximize=False,
        capturable=False,
        foreach=None,
        differentiable=False,
    ):
        super().__init__(
            params,
            clip=clip,
            lr=lr,
            alpha=alpha,
            eps=eps,
            momentum=momentum,
            centered=centered,
            weight_decay=weight_decay,
            maximize=maximize,
            capturable=capturable,
            foreach=foreach,
            differentiable=differentiable,
        )
