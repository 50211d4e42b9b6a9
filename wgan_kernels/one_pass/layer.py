"""A linear layer or a convolution as a node of a program."""

import torch

from .. import _layout
from .computed import is_steady
from .nodes import Node, of
from .program import Refused

_NOTHING = {"weight": None, "bias": None}
# Elements of a kernel for one of its images, from which on it stays where it is. Of one sample of 64×64 DCGAN's penalty
# is 1.28 times as fast so, of 32×32 1.17, of two 1.12 (AVX2).
_LARGE = 16


class Layer(Node):
    """Linear in x and in the weight: its three maps are those of rules/bilinear.py.

    Under autocast all that they multiply is in its precision, the weight rounded once for all sweeps.

    module: None where it is a function. how: a ``Geometry``, or None for a product with a matrix.
    computed: {"weight" or "bias": the place of what is computed for it among the results of the ``Outside``}
    """

    gives = pulls = takes_tangent = True
    saved = ("results", "x", "given", "weight", "like", "delta", "t", "r", "bent", "grad")

    def __init__(self, name, what, module, maps, how, computed):
        super().__init__(name, what)
        self.module, self.maps, self.how, self.computed = module, maps, how, computed
        if computed:
            self.keeps = computed.values()
        moving = [] if module is None else [name for name in computed if not is_steady(module, name)]
        if moving:
            self.apart = f"computes its {moving[0]} anew for real, fake and interpolated samples"
        self.forget()

    def give(self, results, times):
        self.results = results

    def weights(self, results):
        """(weight, bias), as they are now."""
        of = _NOTHING if self.module is None else self.module._parameters  # its attributes take ten times as long
        if self.computed:
            of = {**of, **{name: results[place] for name, place in self.computed.items()}}
        return of["weight"], of["bias"]

    def forward(self, split, x):
        self.split, self.given, self.dtype = split, self.weights(self.results), x.dtype
        if self.how is not None and x.dim() != self.given[0].dim():
            raise Refused(f"{self.name}: is given {tuple(x.shape)}, of which not each is a sample")
        device = "cpu" if x.is_cpu else x.device.type
        rounds = torch.is_autocast_enabled(device) and x.dtype is not torch.float64
        self.rounded = torch.get_autocast_dtype(device) if rounds else None
        self.x, weight, bias = x, *self.given
        if self.rounded is not None:
            self.x, weight, bias = map(self._rounded, (x, *self.given))
        self.weight = self.laid_out(weight)
        self.like = weight  # the weight gradient's memory, if the kernel can
        return self.maps.forward(self.x, self.weight, bias, self.how)

    def laid_out(self, weight):
        """A convolution's channels-last once for all sweeps over images that are, else each would copy it. Where it
        outweighs them, it is they that are taken out of that memory.
        """
        self.memory = None
        if self.x.is_contiguous() or self.x.dim() != weight.dim():
            return weight
        memory = _layout.memory_format(self.x)
        if weight.numel() >= _LARGE * self.x.numel() and weight.is_contiguous():
            self.memory, self.x = memory, self.x.contiguous()
            return weight
        return weight.contiguous(memory_format=memory)

    def as_given(self, grad, weight):
        """A gradient of what ``laid_out`` has made of the weight."""
        return _layout.alike(weight, of(weight.dtype, grad))[1]

    def pullback(self, delta, rows):
        self.delta, x = delta, self.x
        if rows is not None:
            delta, x = delta[rows], x[rows]
        return [self._images(self.maps.pullback(delta, self.weight, x, self.how))]

    def pushforward(self, t):
        self.t = self._rounded(t if self.memory is None else t.contiguous())
        pushed = self.maps.forward(self.t, self.weight, None, self.how) if self.pushes else None
        if self.is_done:
            self.weight = None
        if not self.split:  # nothing but t meets δ, which need not be kept
            if self.is_done:
                self.x = None
            if self.is_done or not self.waits():
                self._meet(self.t, self.delta)
        return pushed

    def waits(self):
        """Whether a penalty's weight gradient is taken once for both t and what has bent, not once for each: where
        that saves more than copies of both take. S3's convolutions with any norm, or tanh: 1.04 to 1.13 times as fast
        with up to 8 samples; kernels of 4×4 with one: 1.09; of 3×3 with one, which PyTorch takes another way than two:
        0.96 to 1.00 (AMD EPYC, two cores).
        """
        if len(self.x) == 1 and max(self.weight.shape[2:]) <= 3:
            return False
        return self.x.numel() < 4 * self.weight.numel()

    def curvature(self, r, wanted):
        self.r, x = r, self.x[self.split :]
        if not self.split and self.waits():
            both = (self.t, self.delta) if r is None else (torch.cat([x, self.t]), torch.cat([r, self.delta]))
            self._meet(*both)
        elif r is not None:
            self.bent = self._weight_gradient(x, r)
        return [self._images(self.maps.pullback(r, self.weight, x, self.how)) if wanted and r is not None else None]

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

    def _images(self, pulled):
        """As those that were given."""
        pulled = of(self.dtype, pulled)
        return pulled if self.memory is None else pulled.contiguous(memory_format=self.memory)

    def _rounded(self, tensor):
        """As autocast has the operands of a product, where it is on."""
        return tensor if tensor is None or self.rounded is None else tensor.to(self.rounded)
