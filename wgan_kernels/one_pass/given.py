"""Operations of a value and of what an ``Outside`` has come to, as nodes of a program."""

import math

import torch

from .. import _layout
from .nodes import Node, of
from .program import Refused


class Given(Node):
    """An operation of a value and of what is ``given`` from outside, whose gradient is told as a parameter's is.

    Where several batches come behind each other, what is given has the rows of one, for each of them the same.
    """

    saved = ("given", "sums")

    def __init__(self, name, what, places):
        super().__init__(name, what)
        self.places = places
        self.forget()

    def give(self, results, times):
        self.given, self.times = [results[place] for place in self.places], times
        self.sums = [None] * len(self.given)

    def _beside(self, x):
        """What is given, with a row for each of x where it has rows."""
        if self.times == 1:
            return self.given
        return [self._repeated(given, x) for given in self.given]

    def _repeated(self, given, x):
        if given.dim() < x.dim():
            return given
        if len(given) * self.times == len(x):
            return given.repeat(self.times, *[1] * (given.dim() - 1))
        if len(given) != 1:
            raise Refused(f"{self.name}: is given {len(given)} rows for batches of {len(x) // self.times} samples")
        return given

    def _receives(self, grads):
        """Adds to what those that are given receive. grads: () → a gradient each, with rows of any number of batches;
        called where any of them wants one.
        """
        if not any(given.requires_grad for given in self.given):
            return
        for i, (given, grad) in enumerate(zip(self.given, grads(), strict=True)):
            if given.requires_grad:
                if given.dim() == grad.dim() and 1 < len(given) < len(grad):
                    grad = grad.unflatten(0, (-1, len(given))).sum(0)
                grad = of(given.dtype, grad.sum_to_size(given.shape))
                self.sums[i] = grad if self.sums[i] is None else self.sums[i] + grad

    def gradients(self):
        """None: zeros, where autograd would have a way to it."""
        received = []
        for given, grad in zip(self.given, self.sums, strict=True):
            if given.requires_grad and (grad is not None or self.bent_behind):
                received.append((given, torch.zeros_like(given) if grad is None else grad))
        return received


class Cat(Given):
    """One value between others from outside: behind each other along ``dim``, the value as number ``index``."""

    gives, pulls = True, None

    def __init__(self, name, places, index, dim):
        super().__init__(name, "cat", places)
        self.index, self.dim = index, dim

    def forward(self, split, x):
        if self.dim % x.dim() == 0:
            raise Refused(f"{self.name}: puts samples behind each other")
        self.split, self.memory, self.dtype = split, _layout.memory_format(x), x.dtype
        self.widths = [given.shape[self.dim] for given in self.given]
        self.widths.insert(self.index, x.shape[self.dim])
        # How many numbers of a sample come ahead of the value's, where these stay together.
        self.ahead = sum(self.widths[: self.index]) * math.prod(x.shape[2:]) if self.dim % x.dim() == 1 else None
        return self._cat(x, self._beside(x))

    def pullback(self, delta, rows):
        if self.split:
            self._receives(lambda: self._others(delta[: self.split]))
        return [self._part(delta)]

    def pushforward(self, t):
        return self._cat(t, [torch.zeros_like(given) for given in self.given])

    def curvature(self, r, wanted):
        if r is None:
            return [None]
        self._receives(lambda: self._others(r))
        return [self._part(r) if wanted else None]

    def _cat(self, x, others):
        parts = list(others)
        parts.insert(self.index, x)
        y = torch.cat(parts, self.dim)
        return _layout.channels_last(y) if y.dim() == 4 else y

    def _part(self, delta):
        part = of(self.dtype, delta.split(self.widths, self.dim)[self.index])
        return part.contiguous(memory_format=self.memory)

    def _others(self, delta):
        parts = list(delta.split(self.widths, self.dim))
        del parts[self.index]
        return parts


class Shift(Given):
    """x + given."""

    gives, pulls = True, None

    def __init__(self, name, place):
        super().__init__(name, "add", [place])

    def forward(self, split, x):
        self.split, self.dtype = split, x.dtype
        return _like(self, x, x + self._beside(x)[0])

    def pullback(self, delta, rows):
        if self.split:
            self._receives(lambda: [delta[: self.split]])
        return [of(self.dtype, delta)]

    def pushforward(self, t):
        return t.clone()

    def curvature(self, r, wanted):
        if r is None:
            return [None]
        self._receives(lambda: [r])
        return [of(self.dtype, r) if wanted else None]


class Scale(Given):
    """x∘given, linear in both: what is given receives x∘δ of real and fake, t∘δ and r∘x of interpolated samples."""

    gives = pulls = takes_tangent = True
    saved = (*Given.saved, "before", "x", "delta")

    def __init__(self, name, place):
        super().__init__(name, "mul", [place])
        self.keeps = self.places

    def forward(self, split, x):
        self.split, self.dtype = split, x.dtype
        self.before, self.x = x[:split], x[split:]
        return _like(self, x, x * self._beside(x)[0])

    def pullback(self, delta, rows):
        self.delta = delta[self.split :]
        if self.split:
            self._receives(lambda: [delta[: self.split] * self.before])
            self.before = None
        return [of(self.dtype, delta * self._beside(delta)[0])]

    def pushforward(self, t):
        self._receives(lambda: [t * self.delta])
        return t * self.given[0]

    def curvature(self, r, wanted):
        if r is None:
            return [None]
        self._receives(lambda: [r * self.x])
        return [of(self.dtype, r * self.given[0]) if wanted else None]


def _like(node, x, y):
    if y.shape != x.shape:
        raise Refused(f"{node.name}: {tuple(x.shape)} became {tuple(y.shape)}: expected the shape of the samples")
    return y
