"""A smooth activation as a node of a program, by the curves of rules/smooth.py or the kernels of rules/_smooth.py."""

import torch

from ..rules import _smooth
from .nodes import Node, of


class Smooth(Node):
    """y = φ(x): Jᵀδ = φ′·δ, J t = φ′·t, and φ″·δ·t as the curvature. Half types are computed in float32."""

    bare = curved = bends = pulls = takes_tangent = True
    saved = ("kept", "delta", "bent")

    def __init__(self, name, what, curve):
        super().__init__(name, what)
        self.curve = curve
        self.gives = not curve.of_result
        self.forget()

    def forward(self, split, x):
        self.maps = _smooth.suited(self.curve, x)
        y = self.maps.forward(x)
        self.split, self.given, self.out = split, x.dtype, y.dtype
        self.kept = _wide(y if self.curve.of_result else x)
        return y

    def pullback(self, delta, rows):
        delta, kept = _wide(delta), self.kept
        self.delta = delta[self.split - len(kept) :]  # of them there may be these alone
        if rows is not None:
            delta, kept = delta[rows], kept[rows]
        return [of(self.given, self.maps.pullback(delta, kept))]

    def pushforward(self, t):
        pushed, self.bent = self.maps.second(_wide(t), self.delta, self.kept[self.split :])
        return of(self.out, pushed)

    def curvature(self, r, wanted):
        if not wanted:
            return [None]
        kept = self.kept[self.split :]
        bent = self.bent if r is None else self.maps.pullback_onto(self.bent, _wide(r), kept)
        return [of(self.given, bent)]


def _wide(x):
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
