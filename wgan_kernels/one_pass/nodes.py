"""What every sweep of a program does at one operation of the critic.

A value of the critic has rows for the real, the fake and the interpolated samples; ``split`` is where the latter begin.
With J the Jacobian of the operation y = F(x), and w its parameters, the sweeps are::

    forward        x ↦ y                     all rows
    pullback       δ ↦ Jᵀδ                   all rows
    pushforward    t ↦ J t                   interpolated rows
    curvature      r ↦ Jᵀr + ∂ₓ⟨t, Jᵀδ⟩      interpolated rows, where an operation is curved
    gradients      ∂_w of ⟨δ, F⟩ over real and fake, of ⟨t, Jᵀδ⟩ and of ⟨r, F⟩ over interpolated rows

``rows`` of a pullback are those that anyone wants: None for all, or the interpolated ones, the last. Of these alone δ
itself may be, too, where no parameter is behind. δ and t have the memory format of the value that they belong to.
"""

import torch

from .. import _layout
from .program import Refused


class Node:
    """One operation.

    curved: its Jacobian depends on x, so that the fourth sweep is needed.
    bare: it has no parameters, and its pullback takes δ of the interpolated rows alone, too.
    gives, pulls: whether y and J t, or Jᵀδ, are tensors that it does not keep, and nobody else has; ``None``: they are
    views of what it was given.
    bends: it is not linear.
    reader: the node that alone reads its result, or None, as the program says.
    takes_tangent: it wants t for more than J t, which is wanted only if ``pushes``, as the program says.
    over_x, over_delta: whether x and t, or δ, are its own to write over, as the program says.
    bent_behind: whether something bends behind it, likewise.
    is_done: whether nothing but the gradients comes after the pushforward, likewise.
    apart: why a critic step, whose real, fake and interpolated samples go through together, cannot have it, or None.
    draws: it takes random numbers in the forward sweep.
    keeps: places of the results of an ``Outside`` that later sweeps read.
    """

    curved = bare = bends = takes_tangent = False
    gives = pulls = False
    over_x = over_delta = bent_behind = pushes = is_done = False
    draws = False
    module = reader = apart = None
    keeps = ()

    def __init__(self, name, what):
        self.name, self.what = name, what

    def parameters(self):
        return () if self.module is None else self.module.parameters()

    def give(self, results, times):
        """Takes what it reads of those of an ``Outside``. times: how many batches of that size come together."""

    def gradients(self):
        """[(parameter, what it receives)]"""
        return []

    def forget(self):
        """Lets go of what the sweeps have saved."""
        for name in self.saved:
            setattr(self, name, None)


class Piecewise(Node):
    """A piecewise linear activation: J is a mask that the result tells, and its own transpose.

    Where nobody else has its operand, the result is written over that, which is in the cache: the first activation of
    64 images of S3 takes 0.1 ms so, and up to 1.2 into memory of its own (AMD EPYC, two cores).
    """

    bare = bends = True
    saved = ("y",)

    def __init__(self, name, what, maps):
        super().__init__(name, what)
        self.maps = maps
        self.forget()

    def forward(self, split, x):
        self.split, self.y = split, (self.maps.in_place if self.over_x else self.maps.forward)(x)
        return self.y

    def pullback(self, delta, rows):
        y = self.y
        if rows is not None:
            delta, y = delta[rows], y[rows]
        return [(self.maps.pull_over if self.over_delta else self.maps.pullback)(delta, y)]

    def pushforward(self, t):
        y = self.y[self.split :]
        if self.is_done:
            self.y = None
        return (self.maps.pull_over if self.over_x else self.maps.pullback)(t, y)

    def curvature(self, r, wanted):
        return [self.maps.pullback(r, self.y[self.split :]) if wanted and r is not None else None]


class Reshape(Node):
    """Another shape for each sample."""

    bare = True
    gives = pulls = None
    saved = ()

    def __init__(self, name, what, call):
        super().__init__(name, what)
        self.call = call

    def forward(self, split, x):
        y = _of_each_sample(self, self.call, x)
        self.inner, self.outer, self.memory = x.shape[1:], y.shape[1:], _layout.memory_format(x)
        return y

    def pullback(self, delta, rows):
        delta = delta if rows is None else delta[rows]
        return [_shaped(delta, self.inner).contiguous(memory_format=self.memory)]

    def pushforward(self, t):
        return _shaped(t, self.outer)

    def curvature(self, r, wanted):
        return [_shaped(r, self.inner) if wanted and r is not None else None]


class Linear(Node):
    """Linear in x, without parameters: an average, a permutation, a padding. Its transpose is autograd's.

    bends: whether autograd believes so, and sends zeros.
    """

    bare = True
    saved = ("x", "y", "t", "pushed")

    def __init__(self, name, what, call, bends=False):
        super().__init__(name, what)
        self.call, self.bends = call, bends
        self.forget()

    def forward(self, split, x):
        self.x, self.y = self._recorded(x)
        return self.y.detach()

    def pullback(self, delta, rows):
        if len(delta) < len(self.y):
            x, y = self._recorded(self.x[rows])  # any samples would do
            return list(torch.autograd.grad(y, x, delta))
        (pulled,) = torch.autograd.grad(self.y, self.x, delta)
        return [pulled if rows is None else pulled[rows]]

    def pushforward(self, t):
        self.t, self.pushed = self._recorded(t)
        return self.pushed.detach()

    def curvature(self, r, wanted):
        return [torch.autograd.grad(self.pushed, self.t, r)[0] if wanted and r is not None else None]

    @torch.enable_grad()
    def _recorded(self, x):
        x = x.detach().requires_grad_()
        return x, _of_each_sample(self, self.call, x)


class Join(Node):
    """x + y, as at the end of a residual block."""

    bare = gives = True
    saved = ()

    def forward(self, split, x, y):
        if x.shape != y.shape:
            raise Refused(f"{self.name}: joins {tuple(x.shape)} and {tuple(y.shape)}: expected equal shapes")
        self.dtypes = x.dtype, y.dtype
        return x + y

    def pullback(self, delta, rows):
        delta = delta if rows is None else delta[rows]
        return [of(dtype, delta) for dtype in self.dtypes]

    def pushforward(self, s, t):
        return s + t

    def curvature(self, r, wanted):
        return [of(dtype, r) if wanted and r is not None else None for dtype in self.dtypes]


def _shaped(samples, shape):
    """As they are where nothing changes: reshape gives one sample in channels-last memory another stride, for which
    PyTorch's weight gradient of a grouped convolution is wrong (2.15).
    """
    return samples if samples.shape[1:] == shape else samples.reshape(len(samples), *shape)


def of(dtype, tensor):
    """tensor.to(dtype), which alone costs as much as a small operation."""
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _of_each_sample(node, call, x):
    """call(x), of which every sample has to be its own."""
    try:
        y = call(x)
    except RuntimeError as error:  # a size that is not the sample's
        raise Refused(f"{node.name}: {node.what} mixes samples: {error}") from error
    if y.shape[:1] != x.shape[:1]:
        raise Refused(f"{node.name}: {node.what} mixes samples: {tuple(x.shape)} became {tuple(y.shape)}")
    return y
