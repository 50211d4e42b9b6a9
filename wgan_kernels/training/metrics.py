"""How good generated digits are, in the eyes of the frozen digit classifier.

classifier-FID   ‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½) over the classifier's 64 features (Heusel et al. 2017,
                 section 3, with these features for those of Inception): comparable within this project only.
confidence       mean over the images of the largest softmax probability; real held-out digits have 0.99.
histogram        share of each digit among the classifier's decisions.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ._optional import optional
from .data import Digits, to_unit
from .models.digit_classifier import FEATURES, frozen_classifier

CHUNK = 500


@dataclass(frozen=True)
class Verdict:
    """fid ≥ 0; confidence in [0, 1]; histogram: the shares of the digits 0 to 9, which add up to 1."""

    fid: float
    confidence: float
    histogram: tuple[float, ...]

    def smallest_mode(self, digits: Iterable[int]) -> float:
        """The share of the rarest of ``digits``; 0 if one is never generated."""
        return min(self.histogram[digit] for digit in digits)


class Judge:
    """Compares generated images with one set of real ones, whose statistics are computed once."""

    def __init__(self, real: Digits):
        self.classifier = frozen_classifier(real.images.device)
        fid = optional("torchmetrics.image.fid", "the classifier-FID").FrechetInceptionDistance
        passthrough = nn.Identity()  # the features are computed here, together with the decisions
        passthrough.num_features = FEATURES
        # One rank judges: torchmetrics would wait for the others.
        self.distance = fid(feature=passthrough, reset_real_features=False, sync_on_compute=False)
        self.distance = self.distance.to(real.images.device)
        for images in real.images.split(CHUNK):
            self.distance.update(self._features(to_unit(images)), real=True)

    @torch.no_grad()
    def __call__(self, batches: Iterable[torch.Tensor]) -> Verdict:
        """The verdict on all images of ``batches``, each [B, 1, 28, 28] in [−1, 1], together at least two."""
        self.distance.reset()
        probabilities = []
        for images in batches:
            features = self._features(images)
            self.distance.update(features, real=False)
            probabilities.append(self.classifier.head(features).softmax(1))
        best, digit = torch.cat(probabilities).max(1)
        shares = torch.bincount(digit, minlength=10) / len(digit)
        # Rounding takes the distance of equal sets to about −1e-6.
        fid = max(0.0, self.distance.compute().item())
        return Verdict(fid, best.mean().item(), tuple(shares.tolist()))

    @torch.no_grad()
    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier.features(images)
