"""Precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2): torchmetrics has neither.

M(Φ)        the union of the balls around the points of Φ, each as far as its k-th nearest neighbour in Φ
precision   the share of generated points in M(real): whether what is generated is realistic
recall      the share of real points in M(generated): whether what is real can be generated
"""

import torch

K = 3  # as in the paper


def precision_and_recall(real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    """Of features [n, d] and [m, d]. The paper takes n = m: more points make smaller balls."""
    apart = _distances(real, fake)  # [n, m]
    precision = (apart <= radii(real)[:, None]).any(0)
    recall = (apart <= radii(fake)).any(1)
    return precision.float().mean().item(), recall.float().mean().item()


def radii(points: torch.Tensor) -> torch.Tensor:
    """[n, d] → [n]: the distance of each point to its K-th nearest other one; to the farthest of fewer than K."""
    nearest = min(K, len(points) - 1) + 1  # of which the first is the point itself
    return _distances(points, points).topk(nearest, largest=False).values[:, -1]


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # Float64: cdist multiplies matrices, which in float32 puts a point up to 1e-3 of its norm away from itself. Without
    # matrix products it takes 6 times as long.
    return torch.cdist(x.double(), y.double())
