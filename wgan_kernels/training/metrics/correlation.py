"""How well one figure follows another over a run: the critic's estimate, say, and W₁."""

import math
from collections.abc import Sequence

import torch

from .._optional import optional


def correlation(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(Pearson's, Spearman's) of n pairs: on a line, and in the same order. NaN where a or b is constant or n < 2."""
    if min(len(set(a)), len(set(b))) < 2:
        return math.nan, math.nan
    functional = optional("torchmetrics.functional", "the correlation")
    pair = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    return functional.pearson_corrcoef(*pair).item(), functional.spearman_corrcoef(*pair).item()
