"""Dropout as a node of a program."""

import torch

from .nodes import Node
from .program import Refused


class Dropout(Node):
    """y = m∘x with a mask m that is drawn in the forward sweep, or before, and is there for all others: a diagonal J.

    It is drawn as PyTorch draws it for samples in contiguous memory, so that it is the same one.

    drop: what makes of ones the mask. dims: of the images whose channels are kept or dropped whole, or None.
    masks: drawn ahead, of one batch of samples after the other.
    """

    bare = gives = pulls = draws = True
    saved = ("mask", "masks")

    def __init__(self, name, what, drop, dims=None):
        super().__init__(name, what)
        self.drop, self.dims = drop, dims
        self.forget()

    def draw(self, batch):
        """The mask of one batch, of samples like those of the last forward sweep."""
        mask = self.drop(torch.ones(batch, *self.one, dtype=self.dtype, device=self.device))
        self.masks = [*(self.masks or ()), mask]

    def forward(self, split, x):
        self.split, self.one, self.dtype, self.device = split, x.shape[1:], x.dtype, x.device
        if self.dims is not None:
            if x.dim() != self.dims + 2:
                raise Refused(f"{self.name}: is given {tuple(x.shape)}, of which not each is a sample")
            self.one = x.shape[1], *[1] * self.dims
        if self.masks is None:
            self.draw(len(x))
        mask = torch.cat(self.masks)
        self.mask = mask if self.dims is not None else torch.empty_like(x).copy_(mask)
        return x * self.mask

    def pullback(self, delta, rows):
        return [delta * self.mask if rows is None else delta[rows] * self.mask[rows]]

    def pushforward(self, t):
        return t * self.mask[self.split :]

    def curvature(self, r, wanted):
        return [r * self.mask[self.split :] if wanted and r is not None else None]
