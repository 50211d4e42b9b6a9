"""PReLU as a node of a program, by the maps of rules/prelu.py."""

from ..rules import prelu
from .nodes import Node
from .program import Refused


class PReLU(Node):
    """y = x where x > 0, w·x elsewhere: linear in w, and in x within a piece."""

    bends = gives = pulls = takes_tangent = True
    saved = ("x", "weight", "w", "delta", "grad")

    def __init__(self, name, module):
        super().__init__(name, type(module).__name__)
        self.module = module
        self.forget()

    def forward(self, split, x):
        self.split, self.x, self.weight, self.grad = split, x, self.module.weight, None
        if not prelu.takes(x, self.weight):
            raise Refused(
                f"{self.name}: takes {tuple(x.shape)} of {x.dtype} otherwise than sample by sample, or not at all"
            )
        self.w = prelu.for_channels(self.weight.detach(), x)
        return prelu.forward(x, self.w)

    def pullback(self, delta, rows):
        split, x = self.split, self.x
        self.delta = delta[split:]
        if split:
            self._add(x[:split], delta[:split], x[:split])
        if rows is not None:
            delta, x = delta[rows], x[rows]
        return [prelu.pullback(delta, x, self.w)]

    def pushforward(self, t):
        x = self.x[self.split :]
        self._add(t, self.delta, x)
        return prelu.pullback(t, x, self.w) if self.pushes else None

    def curvature(self, r, wanted):
        x = self.x[self.split :]
        if r is not None:
            self._add(x, r, x)
        return [prelu.pullback(r, x, self.w) if wanted and r is not None else None]

    def gradients(self):
        return [(self.weight, self.grad.view_as(self.weight))] if self.weight.requires_grad else []

    def _add(self, z, delta, x):
        if self.weight.requires_grad:
            more = prelu.weight_gradient(z, delta, x, self.w)
            self.grad = more if self.grad is None else self.grad + more
