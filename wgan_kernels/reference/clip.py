"""Weight clipping (Arjovsky et al. 2017, algorithm 1, line 7)."""

import torch
from torch import nn


@torch.no_grad()
def clip_(params, *bounds, bound=None, low=None, high=None):
    """w ← clip(w, low, high) for every w in ``params``; ``bound`` alone means [−bound, bound]."""
    if len(bounds) == 2:
        low, high = bounds
    elif bounds and high is not None:
        (low,) = bounds
    elif bounds or bound is not None:
        (bound,) = bounds or (bound,)
        low, high = -bound, bound
    if isinstance(params, torch.Tensor):
        params = [params]
    elif isinstance(params, nn.Module):
        params = params.parameters()
    for param in params:
        param.clamp_(low, high)
