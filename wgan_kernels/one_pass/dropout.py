"""Dropout as a node of a program."""

import torch

from .nodes import Node
from .program import Refused


class Dropout(Node):
    """y = m∘x with a mask m that is drawn in the forward sweep and is there for all others: a diagonal J.

    It is drawn as PyTorch draws it for samples in contiguous memory, so that it is the same one.

    drop: what makes of ones the mask. dims: of the images whose channels are kept or dropped whole, or None.
    """

    apart = "draws for real, fake and interpolated samples in turn"
    bare = gives = pulls = draws = True
    saved = ("mask",)

    def __init__(self, name, what, drop, dims=None):
        super().__init__(name, what)
        self.drop, self.dims = drop, dims
        self.forget()

    def forward(self, split, x):
        shape = x.shape
        if self.dims is not None:
            if x.dim() != self.dims + 2:
                raise Refused(f"{self.name}: is given {tuple(shape)}, of which not each is a sample")
            shape = *shape[:2], *[1] * self.dims
        mask = self.drop(torch.ones(shape, dtype=x.dtype, device=x.device))
        self.mask = mask if self.dims is not None else torch.empty_like(x).copy_(mask)
        return x * self.mask

    def pullback(self, delta, rows):
        return [delta * (self.mask if rows is None else self.mask[rows])]

    def pushforward(self, t):
        return t * self.mask

    def curvature(self, r, wanted):
        return [r * self.mask if wanted and r is not None else None]
