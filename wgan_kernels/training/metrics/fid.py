"""Classifier-FID (Heusel et al. 2017, section 3, with another network's features for those of Inception).

‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½)    μ, Σ: mean and covariance of the features, real and generated
"""

from collections.abc import Iterable

import torch
from torch import nn

from .._optional import optional


class FeatureDistance:
    """The FID to one set of real samples, whose statistics are computed once."""

    def __init__(self, real: Iterable[torch.Tensor]):
        """real: batches of features [B, d], together at least two, on one device."""
        real = list(real)
        passthrough = nn.Identity()  # the features are computed by the caller, who needs them for more
        passthrough.num_features = real[0].shape[1]
        fid = optional("torchmetrics.image.fid", "the classifier-FID").FrechetInceptionDistance
        # One rank judges: torchmetrics would wait for the others.
        self.metric = fid(feature=passthrough, reset_real_features=False, sync_on_compute=False).to(real[0].device)
        for features in real:
            self.metric.update(features, real=True)

    def __call__(self, fake: Iterable[torch.Tensor]) -> float:
        """fake: batches of features [B, d], together at least two."""
        self.metric.reset()
        for features in fake:
            self.metric.update(features, real=False)
        # Rounding takes the distance of equal sets to about −1e-6.
        return max(0.0, self.metric.compute().item())
