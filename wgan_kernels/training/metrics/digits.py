"""The judge of MNIST digits, in the eyes of the frozen digit classifier and by their pixels.

fid                 classifier-FID over the classifier's 64 features: comparable within this project only
confidence          mean over the images of the largest softmax probability
histogram           share of each digit 0 to 9 among the classifier's decisions
smallest_mode       the smallest of those shares, of the digits trained on: 0 if one is never generated
precision, recall   in the classifier's features (``neighbours``)
modes, kl           of the digits trained on: how many are covered, how evenly they come (``modes``)
w1, sliced_w        of the pixels, in [−1, 1] (``transport``)
"""

from collections.abc import Iterable
from functools import cached_property

import torch

from ..data import Images
from ..models.digit_classifier import frozen_classifier
from . import halves
from .fid import FeatureDistance
from .modes import covered, kl_to_uniform
from .neighbours import precision_and_recall
from .transport import Sketch, directions, distances
from .verdict import TRANSPORT, Verdict, in_words

# Images of each kind, for precision and recall: 0.12 s on one core of an AMD EPYC; of 5,000 it would be 0.84. A whole
# verdict on 5,000 digits takes 0.94 s; without precision, recall and transport it took 0.72.
NEIGHBOURS = 2000
FIGURES = {
    "fid": ("classifier-FID", ".2f"),
    "confidence": ("classifier's confidence", ".3f"),
    "smallest_mode": ("smallest mode", ".1%"),
    "precision": ("precision", ".1%"),
    "recall": ("recall", ".1%"),
    "modes": ("modes", "d"),
    "kl": ("KL of the modes to even shares", ".4f"),
    **TRANSPORT,
}


class DigitJudge:
    headline = "fid"

    def __init__(self, data: Images, labels: tuple[int, ...]):
        """data: at least two images. labels: the digits among them."""
        self.data, self.labels = data, list(labels)
        self.classifier = frozen_classifier(data.images.device)
        reference, self.held_out = halves.of_images(data)
        self.directions = directions(data.images[0].numel(), data.images.device)
        self.reference = Sketch(self.directions)
        for images in halves.at(data, reference):
            self.reference.add(images)
        everything = torch.arange(len(data), device=data.images.device)
        features = torch.cat([self.classifier.features(images) for images in halves.at(data, everything)])
        self.fid = FeatureDistance(features.split(halves.CHUNK))
        self.neighbours = features[reference[:NEIGHBOURS]]

    @torch.no_grad()
    def __call__(self, batches: Iterable[torch.Tensor]) -> Verdict:
        """The verdict on all images of ``batches``, each [B, 1, 28, 28] in [−1, 1], together at least two."""
        sketch, features = Sketch(self.directions), []
        for images in batches:
            sketch.add(images)
            features.append(self.classifier.features(images))
        fid, features = self.fid(features), torch.cat(features)
        best, digit = self.classifier.head(features).softmax(1).max(1)
        counts = torch.bincount(digit, minlength=10)
        histogram, asked = counts.double() / len(digit), counts[self.labels]
        precision, recall = precision_and_recall(self.neighbours, features[: len(self.neighbours)])
        return {
            "fid": fid,
            "confidence": best.mean().item(),
            "histogram": histogram.tolist(),
            "smallest_mode": asked.min().item() / len(digit),
            "precision": precision,
            "recall": recall,
            "modes": covered(asked, len(digit)),
            "kl": kl_to_uniform(asked),
            **distances(sketch, self.reference),
        }

    def words(self, verdict: Verdict) -> dict[str, str]:
        histogram = "  ".join(f"{digit}: {share:.0%}" for digit, share in enumerate(verdict["histogram"]))
        return in_words(verdict, self.real, FIGURES) | {"digits generated": histogram}

    @cached_property
    def real(self) -> Verdict:
        """What real digits get; of these the FID alone has seen them before."""
        return self(halves.at(self.data, self.held_out))
