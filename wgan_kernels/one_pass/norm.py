"""A norm as a node of a program, by the kernels of rules/norm.py."""

import torch
from torch import nn

from .. import _layout
from ..rules import _group_norm, norm
from .nodes import Node
from .program import Refused


class Norm(Node):
    """Each sample normalised by its own statistics: y = x̂·w + b, Jᵀδ = P(w·δ), J t = w·P(t).

    In channels-last memory images stay there: those of groups of channels by kernels of their own, those that are one
    row each with the weights in the order of the pixels.
    """

    curved = bends = gives = pulls = takes_tangent = True
    saved = ("x", "params", "delta", "stats", "wide", "bent", "sums")

    def __init__(self, name, module):
        super().__init__(name, type(module).__name__)
        self.module = module
        self.forget()

    def forward(self, split, x):
        """In the weights' precision, y in that of autocast."""
        if isinstance(self.module, nn.RMSNorm) and self.module.eps is None and x.dtype.itemsize < 4:
            raise Refused(f"{self.name} (RMSNorm): its eps depends on PyTorch's version in this precision; give it one")
        self.split, self.how = split, (how := _rows(self.name, self.module, x))
        self.params = weight, bias = self.module.weight, getattr(self.module, "bias", None)
        dtypes = {w.dtype for w in (weight, bias) if w is not None} or {x.dtype}
        (dtype, *others) = dtypes
        widens = dtype is torch.float32 and x.dtype is not torch.float64
        if how.leaves is None or others or not (dtype is x.dtype or widens):
            raise Refused(f"{self.name} ({self.what}): there are no kernels for it on this device, in this precision")
        self.dtype, self.given, self.out = dtype, x.dtype, norm.as_autocast(x).dtype
        self.memory = _layout.memory_format(x)
        is_last = self.memory is torch.channels_last
        self.by_channels = is_last and how.inner > 1 and _group_norm.serve(x, dtype)
        if self.by_channels:
            self.how = how = _group_norm.Channels(how.sets, how.bends_bias, how.eps)
        self.turned = is_last and (self.by_channels or how.rows(x) == 1)
        self.wide = self._spread(weight, x)
        wide_bias = self._spread(bias, x)
        x = self._rows(x)
        y, *stats = how.fwd(x, self.wide, wide_bias)
        rows = split * how.rows(x)
        self.x, self.stats = (x[:split], x[split:]), ([s[:rows] for s in stats], [s[rows:] for s in stats])
        return self._images(y).to(self.out)

    def pullback(self, delta, rows):
        delta = self._rows(delta)
        if not self.split:
            self.delta, rstd = delta, self.stats[1][-1]
            self.sums = [rstd.new_zeros(self.how.weights(delta)) for _ in range(2)]
            return [self._images(self._pull(delta, 1)[0]).to(self.given)]
        split = len(delta) - len(self.x[1])
        self.delta = delta[split:]
        pulled, *self.sums = self._pull(delta[:split], 0, x_asked=rows is None, weights_asked=True)
        hat, *_ = self._pull(self.delta, 1)
        return [self._images(torch.cat([pulled, hat]) if rows is None else hat).to(self.given)]

    def pushforward(self, t):
        asked = True, True, self.wide is not None
        found = self.how.bwd_bwd(self._rows(t), self.delta, self.x[1], self.wide, self.stats[1], *asked)
        pushed, self.bent, *sums = found
        self._add(sums)
        return self._images(pushed).to(self.out)

    def curvature(self, r, wanted):
        if r is not None:
            pulled, *sums = self._pull(self._rows(r), 1, x_asked=wanted, weights_asked=True)
            self._add(sums)
            if wanted:
                self.bent.add_(pulled)
        return [self._images(self.bent).to(self.given) if wanted else None]

    def gradients(self):
        weight, bias = self.params
        received = []
        if weight is not None and weight.requires_grad:
            received.append((weight, self._gathered(self.sums[0], weight)))
        has_way = self.split or self.bent_behind or self.how.bends_bias  # that autograd would have
        if bias is not None and bias.requires_grad and has_way:
            received.append((bias, self._gathered(self.sums[1], bias)))
        return received

    def _rows(self, x):
        """x as the kernels have it: the elements of a row behind each other."""
        x = x.to(self.dtype)
        return (x.permute(0, 2, 3, 1) if self.turned else x).contiguous()

    def _images(self, x):
        """The reverse, of a result: in the memory of the samples, which the convolutions beside it take."""
        return x.permute(0, 3, 1, 2) if self.turned else x.contiguous(memory_format=self.memory)

    def _spread(self, w, x):
        wide = self.how.spread(w)
        if wide is None or self.by_channels or not self.turned:
            return wide
        return wide.view(x.shape[1:]).permute(1, 2, 0).contiguous()

    def _gathered(self, grad, w):
        if self.turned and not self.by_channels:
            grad = grad.view(self.x[0].shape[1:]).permute(2, 0, 1).contiguous()
        return self.how.gather(grad, w)

    def _pull(self, delta, part, x_asked=True, weights_asked=False):
        """Jᵀδ, and the gradients of w and b in ⟨δ, y⟩, of the real and fake samples or of the interpolated ones."""
        return self.how.bwd(delta, self.x[part], self.wide, self.stats[part], x_asked, weights_asked)

    def _add(self, sums):
        for total, more in zip(self.sums, sums, strict=False):
            if more.numel():
                total += more


def _rows(name, module, x):
    """How the samples x are normalised by a module."""
    if not _takes(module, x.shape):
        raise Refused(f"{name}: {module} takes {tuple(x.shape)} otherwise than sample by sample, or not at all")
    if isinstance(module, nn.LayerNorm):
        return norm.layer_rows(x, torch.Size(module.normalized_shape), module.eps)
    if isinstance(module, nn.RMSNorm):
        eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps
        return norm.layer_rows(x, torch.Size(module.normalized_shape), eps, centered=False)
    if isinstance(module, nn.GroupNorm):
        return norm.group_rows(x, module.num_groups, module.eps)
    return norm.group_rows(x, module.num_features, module.eps, bends_bias=False)


_DIMS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}


def _takes(module, shape):
    """Whether it is given samples of the shape that it was made for; of another, torch makes an error or something
    else: InstanceNorm1d takes [B, C] for channels of one sample.
    """
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        inner = tuple(module.normalized_shape)
        return len(shape) > len(inner) and tuple(shape[-len(inner) :]) == inner
    if isinstance(module, nn.GroupNorm):
        return len(shape) > 1 and shape[1] == module.num_channels
    return len(shape) == _DIMS[type(module)] and shape[1] == module.num_features and shape[2:].numel() > 1
