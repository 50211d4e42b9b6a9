"""Weight clipping (Arjovsky et al. 2017, algorithm 1, line 7)."""

import torch
from torch import nn


@torch.no_grad()
def clip_(params, bound=None, high=None, *, low=None):
    """w ← clip(w, low, high) for every w in ``params``; ``bound`` alone means [−bound, bound]."""
    if low is None:
        low = bound if high is not None else -bound
    if high is None:
        high = bound
    if isinstance(params, torch.Tensor):
        params = [params]
    elif isinstance(params, nn.Module):
        params = params.parameters()
    for param in params:
        param.clamp_(low, high)
