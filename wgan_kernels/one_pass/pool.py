"""Maxima over windows as a node of a program, by the maps of rules/pool.py."""

from .nodes import Node
from .program import Refused


class MaxPool(Node):
    """J picks, for each window, the element that was the largest, and is linear between where that changes."""

    bare = bends = gives = pulls = True
    saved = ("kept",)

    def __init__(self, name, what, dims, maps):
        super().__init__(name, what)
        self.dims, self.maps = dims, maps
        self.forget()

    def forward(self, split, x):
        if x.dim() != self.dims + 2:
            raise Refused(f"{self.name}: is given {tuple(x.shape)}, of which not each is a sample")
        self.split = split
        y, *self.kept = self.maps.forward(x)
        return y

    def pullback(self, delta, rows):
        kept = self.kept
        if rows is not None:
            delta, kept = delta[rows], [each[rows] for each in kept]
        return [self.maps.pullback(delta, *kept)]

    def pushforward(self, t):
        return self.maps.pushforward(t, *self._interpolated())

    def curvature(self, r, wanted):
        return [self.maps.pullback(r, *self._interpolated()) if wanted and r is not None else None]

    def _interpolated(self):
        return [each[self.split :] for each in self.kept]
