"""Operations of a value and of what an ``Outside`` has come to, as nodes of a program."""

import torch

from .. import _layout
from .nodes import Node, of
from .program import Refused


class Given(Node):
    """An operation of a value and of what is ``given`` from outside, whose gradient is told as a parameter's is."""

    apart = "reads what no sample goes through"

    def __init__(self, name, what, places):
        super().__init__(name, what)
        self.places = places
        self.forget()

    def give(self, results):
        self.given = [results[place] for place in self.places]

    def _received(self, grads):
        """[(given, its gradient)], of those that want one; None: zeros, where autograd would have a way to it."""
        received = []
        for given, grad in zip(self.given, grads, strict=True):
            if given.requires_grad and (grad is not None or self.bent_behind):
                received.append((given, torch.zeros_like(given) if grad is None else of(given.dtype, grad)))
        return received


class Cat(Given):
    """One value between others from outside: behind each other along ``dim``, the value as number ``index``."""

    gives, pulls = True, None
    saved = ("given", "r")

    def __init__(self, name, places, index, dim):
        super().__init__(name, "cat", places)
        self.index, self.dim = index, dim

    def forward(self, split, x):
        if self.dim % x.dim() == 0:
            raise Refused(f"{self.name}: puts samples behind each other")
        self.memory, self.dtype, self.width = _layout.memory_format(x), x.dtype, x.shape[self.dim]
        self.first = sum(given.shape[self.dim] for given in self.given[: self.index])
        return self._cat(x, self.given)

    def pullback(self, delta, rows):
        return [self._part(delta)]

    def pushforward(self, t):
        return self._cat(t, [torch.zeros_like(given) for given in self.given])

    def curvature(self, r, wanted):
        self.r = r
        return [self._part(r) if wanted and r is not None else None]

    def gradients(self):
        if self.r is None:
            return self._received([None] * len(self.given))
        widths = [given.shape[self.dim] for given in self.given]
        widths.insert(self.index, self.width)
        parts = list(self.r.split(widths, self.dim))
        del parts[self.index]
        return self._received(parts)

    def _cat(self, x, others):
        parts = list(others)
        parts.insert(self.index, x)
        y = torch.cat(parts, self.dim)
        return _layout.channels_last(y) if y.dim() == 4 else y

    def _part(self, delta):
        part = of(self.dtype, delta.narrow(self.dim, self.first, self.width))
        return part.contiguous(memory_format=self.memory)


class Shift(Given):
    """x + given."""

    gives, pulls = True, None
    saved = ("given", "r")

    def __init__(self, name, place):
        super().__init__(name, "add", [place])

    def forward(self, split, x):
        self.dtype = x.dtype
        return _like(self, x, x + self.given[0])

    def pullback(self, delta, rows):
        return [of(self.dtype, delta)]

    def pushforward(self, t):
        return t.clone()

    def curvature(self, r, wanted):
        self.r = r
        return [of(self.dtype, r) if wanted and r is not None else None]

    def gradients(self):
        return self._received([None if self.r is None else self.r.sum_to_size(self.given[0].shape)])


class Scale(Given):
    """x∘given, linear in both: what is given receives t∘δ, and r∘x."""

    gives = pulls = takes_tangent = True
    saved = ("given", "x", "delta", "met")

    def __init__(self, name, place):
        super().__init__(name, "mul", [place])
        self.keeps = self.places

    def forward(self, split, x):
        self.x = x
        return _like(self, x, x * self.given[0])

    def pullback(self, delta, rows):
        self.delta = delta
        return [of(self.x.dtype, delta * self.given[0])]

    def pushforward(self, t):
        self.met = t * self.delta
        return t * self.given[0]

    def curvature(self, r, wanted):
        if r is not None:
            self.met = self.met + r * self.x
        return [of(self.x.dtype, r * self.given[0]) if wanted and r is not None else None]

    def gradients(self):
        return self._received([self.met.sum_to_size(self.given[0].shape)])


def _like(node, x, y):
    if y.shape != x.shape:
        raise Refused(f"{node.name}: {tuple(x.shape)} became {tuple(y.shape)}: expected the shape of the samples")
    return y
