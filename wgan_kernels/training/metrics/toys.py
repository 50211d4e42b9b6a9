"""The judge of samples in the plane, whose true distribution is known.

good                share of samples within 3 standard deviations of a mode (``modes``)
modes, kl           how many modes are covered, and how evenly
w1, sliced_w        in the plane's unit (``transport``)

A distribution without modes has the last two alone.
"""

from collections.abc import Iterable
from functools import cached_property

import torch

from ..data import Toy
from . import halves
from .modes import covered, good_per_mode, kl_to_uniform
from .transport import Sketch, directions, distances
from .verdict import TRANSPORT, Verdict, in_words

FIGURES = {"good": ("good samples", ".1%"), "modes": ("modes", "d"), "kl": ("KL of the modes to even shares", ".4f")}


class ToyJudge:
    headline = "sliced_w"

    def __init__(self, data: Toy):
        self.data = data
        reference, self.held_out = halves.of_toy(data)
        self.reference = self._sketch(reference)

    @torch.no_grad()
    def __call__(self, batches: Iterable[torch.Tensor]) -> Verdict:
        """The verdict on all samples of ``batches``, each [B, 2]."""
        samples = torch.cat(list(batches)).cpu()  # 5,000 points are 40 kB; the toy's modes are there too
        return self._modes(samples) | distances(self._sketch(samples), self.reference)

    def words(self, verdict: Verdict) -> dict[str, str]:
        figures = TRANSPORT if self.data.modes is None else FIGURES | TRANSPORT
        return in_words(verdict, self.real, figures)

    @cached_property
    def real(self) -> Verdict:
        """What real samples get, by others."""
        return self([self.held_out])

    def _modes(self, samples: torch.Tensor) -> Verdict:
        if self.data.modes is None:
            return {}
        good = good_per_mode(samples, self.data.modes, self.data.spread)
        return {
            "good": good.sum().item() / len(samples),
            "modes": covered(good, len(samples)),
            "kl": kl_to_uniform(good),
        }

    def _sketch(self, samples: torch.Tensor) -> Sketch:
        sketch = Sketch(directions(samples.shape[1]))
        sketch.add(samples)
        return sketch
