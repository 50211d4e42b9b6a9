"""Between images and the linear layer that scores them."""

import torch

from .. import _layout
from ..rules import linear
from .layer import Layer
from .nodes import Reshape


class Flatten(Reshape):
    """Each sample as a row, channel by channel; or pixel by pixel, where images lie so and a linear layer alone reads
    them, which has its weight's columns in that order.
    """

    def forward(self, split, x):
        self.is_turned = isinstance(self.reader, Matrix) and self.reader.turns(x)
        if not self.is_turned:
            return super().forward(split, x)
        self.inner = x.shape[1:]
        return _rows(x)

    def pullback(self, delta, rows):
        if not self.is_turned:
            return super().pullback(delta, rows)
        return [self._images(delta if rows is None else delta[rows])]

    def pushforward(self, t):
        return _rows(t) if self.is_turned else super().pushforward(t)

    def curvature(self, r, wanted):
        if not self.is_turned:
            return super().curvature(r, wanted)
        return [self._images(r) if wanted and r is not None else None]

    def _images(self, rows):
        channels, *pixels = self.inner
        return rows.view(len(rows), *pixels, channels).permute(0, 3, 1, 2)


class Matrix(Layer):
    """A linear layer. pixels: [channels, pixels] of its columns where these are read pixel by pixel, else None."""

    pixels = None

    def __init__(self, name, what, module, computed):
        super().__init__(name, what, module, linear.MAPS, None, computed)

    def turns(self, x):
        """Whether images x come pixel by pixel now: where they lie so, and its weight costs less to turn than they."""
        (weight, _), self.pixels = self.weights(self.results), None
        if x.dim() != 4 or _layout.memory_format(x) is not torch.channels_last:
            return False
        if weight.numel() >= x.numel() or x[0].numel() != weight.shape[1]:
            return False
        self.pixels = x.shape[1], x.shape[2] * x.shape[3]
        return True

    def waits(self):
        return True

    def laid_out(self, weight):
        self.memory = None
        return weight if self.pixels is None else weight.unflatten(1, self.pixels).transpose(1, 2).flatten(1)

    def as_given(self, grad, weight):
        if self.pixels is not None:
            grad = grad.unflatten(1, self.pixels[::-1]).transpose(1, 2).flatten(1)
        return super().as_given(grad, weight)


def _rows(images):
    return images.permute(0, 2, 3, 1).flatten(1)
