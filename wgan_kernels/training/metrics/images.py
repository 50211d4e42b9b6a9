"""The judge of images for which there is no classifier: by their pixels, in [−1, 1].

Precision and recall are left out: among pixels the nearest neighbour of an image is seldom one of the same thing.
"""

from collections.abc import Iterable
from functools import cached_property

import torch

from ..data import Images
from . import halves
from .transport import Sketch, directions, distances
from .verdict import TRANSPORT, Verdict, in_words


class ImageJudge:
    headline = "sliced_w"

    def __init__(self, data: Images):
        """data: at least two images."""
        self.data = data
        reference, self.held_out = halves.of_images(data)
        self.directions = directions(data.images[0].numel(), data.images.device)
        self.reference = self._sketch(halves.at(data, reference))

    def __call__(self, batches: Iterable[torch.Tensor]) -> Verdict:
        """The verdict on all images of ``batches``, each [B, C, H, W] in [−1, 1] on the data's device."""
        return distances(self._sketch(batches), self.reference)

    def words(self, verdict: Verdict) -> dict[str, str]:
        return in_words(verdict, self.real, TRANSPORT)

    @cached_property
    def real(self) -> Verdict:
        """What real images get, by others."""
        return self(halves.at(self.data, self.held_out))

    @torch.no_grad()
    def _sketch(self, batches: Iterable[torch.Tensor]) -> Sketch:
        sketch = Sketch(self.directions)
        for images in batches:
            sketch.add(images)
        return sketch
