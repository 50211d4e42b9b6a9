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
    """

    curved = bare = bends = takes_tangent = False
    gives = pulls = False
    over_x = over_delta = bent_behind = pushes = is_done = False
    module = reader = None

    def __init__(self, name, what):
        self.name, self.what = name, what

    def parameters(self):
        return () if self.module is None else self.module.parameters()

    def give(self, results):
        """Takes what it reads of those of an ``Outside``."""

    def gradients(self):
        """[(parameter, what it receives)]"""
        return []

    def forget(self):
        """Lets go of what the sweeps have saved."""
        for name in self.saved:
            setattr(self, name, None)


class Layer(Node):
    """Linear in x and in the weight: its three maps are those of rules/bilinear.py.

    Under autocast all that they multiply is in its precision, the weight rounded once for all sweeps.

    waits: whether a penalty's weight gradient is taken once for both t and what has bent, not once for each.
    """

    gives = pulls = takes_tangent = True
    waits = False
    saved = ("x", "given", "weight", "like", "delta", "t", "r", "bent", "grad")

    def __init__(self, name, module, maps, how):
        super().__init__(name, type(module).__name__)
        self.module, self.maps, self.how = module, maps, how
        self.forget()

    def forward(self, split, x):
        self.split, self.given, self.dtype = split, (self.module.weight, self.module.bias), x.dtype
        if self.how is not None and x.dim() != self.given[0].dim():
            raise Refused(f"{self.name}: is given {tuple(x.shape)}, of which not each is a sample")
        device = "cpu" if x.is_cpu else x.device.type
        rounds = torch.is_autocast_enabled(device) and x.dtype is not torch.float64
        self.rounded = torch.get_autocast_dtype(device) if rounds else None
        self.x, weight, bias = x, *self.given
        if self.rounded is not None:
            self.x, weight, bias = map(self._rounded, (x, *self.given))
        self.weight = self.laid_out(weight, x)
        self.like = weight  # the weight gradient's memory, if the kernel can
        return self.maps.forward(self.x, self.weight, bias, self.how)

    def laid_out(self, weight, x):
        """A convolution's channels-last once for all sweeps over images that are, else each would copy it."""
        if x.is_contiguous() or x.dim() != weight.dim():
            return weight
        return weight.contiguous(memory_format=_layout.memory_format(x))

    def as_given(self, grad, weight):
        """A gradient of what ``laid_out`` has made of the weight."""
        return _layout.alike(weight, of(weight.dtype, grad))[1]

    def pullback(self, delta, rows):
        self.delta, x = delta, self.x
        if rows is not None:
            delta, x = delta[rows], x[rows]
        return [of(self.dtype, self.maps.pullback(delta, self.weight, x, self.how))]

    def pushforward(self, t):
        self.t = self._rounded(t)
        pushed = self.maps.forward(self.t, self.weight, None, self.how) if self.pushes else None
        if self.is_done:
            self.weight = None
        if not self.split:  # nothing but t meets δ, which need not be kept
            if self.is_done:
                self.x = None
            if self.is_done or not self.waits:
                self._meet(self.t, self.delta)
        return pushed

    def curvature(self, r, wanted):
        self.r, x = r, self.x[self.split :]
        if self.waits and not self.split:
            both = (self.t, self.delta) if r is None else (torch.cat([x, self.t]), torch.cat([r, self.delta]))
            self._meet(*both)
        elif r is not None:
            self.bent = self._weight_gradient(x, r)
        return [of(self.dtype, self.maps.pullback(r, self.weight, x, self.how)) if wanted and r is not None else None]

    def gradients(self):
        (weight, bias), split = self.given, self.split
        received = []
        if weight.requires_grad:
            if split:
                self.x[split:] = self.t  # the last that anyone wants of these rows
                self.grad = self._weight_gradient(self.x, self.delta)
            grad = self.grad if self.bent is None else self.grad + self.bent
            received.append((weight, self.as_given(grad, weight)))
        if bias is not None and bias.requires_grad and (split or self.bent_behind):  # else autograd has no way to it
            grad = self.maps.bias_gradient(self.delta[:split], self.how) if split else torch.zeros_like(bias)
            if self.r is not None:
                grad = grad + self.maps.bias_gradient(self.r, self.how)
            received.append((bias, of(bias.dtype, grad)))
        return received

    def _meet(self, x, delta):
        """Of a penalty alone: the weight gradient of what is not needed any more."""
        self.grad, self.delta, self.t = self._weight_gradient(x, delta), None, None

    def _weight_gradient(self, x, delta):
        return self.maps.weight_gradient(x, delta, self.like, self.how) if self.given[0].requires_grad else None

    def _rounded(self, tensor):
        """As autocast has the operands of a product, where it is on."""
        return tensor if tensor is None or self.rounded is None else tensor.to(self.rounded)


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
