"""A norm as a node of a program, by the kernels of rules/norm.py."""

import torch
from torch import nn

from ..rules import norm
from .nodes import Node
from .program import Refused


class Norm(Node):
    """Each sample normalised by its own statistics: y = x̂·w + b, Jᵀδ = P(w·δ), J t = w·P(t)."""

    curved = True
    saved = ("x", "delta", "stats", "wide", "bent", "sums")

    def __init__(self, name, module):
        super().__init__(name, type(module).__name__)
        self.module = module
        self.forget()

    def forward(self, split, x):
        """In the weights' precision, y in that of autocast."""
        if isinstance(self.module, nn.RMSNorm) and self.module.eps is None and x.dtype.itemsize < 4:
            raise Refused(f"{self.name} (RMSNorm): its eps depends on PyTorch's version in this precision; give it one")
        self.how = how = _rows(self.module, x)
        weight, bias = self._weights()
        dtypes = {w.dtype for w in (weight, bias) if w is not None} or {x.dtype}
        (dtype, *others) = dtypes
        widens = dtype is torch.float32 and x.dtype is not torch.float64
        if how.leaves is None or others or not (dtype is x.dtype or widens):
            raise Refused(f"{self.name} ({self.what}): there are no kernels for it on this device, in this precision")
        self.dtype, self.given, self.out = dtype, x.dtype, norm.as_autocast(x).dtype
        x = x.to(dtype).contiguous()
        self.wide = how.spread(weight)
        y, *stats = how.leaves.layer_norm_fwd(
            x, self.wide, how.spread(bias), how.width, how.sets, how.centered, how.eps
        )
        rows = split * how.sets * (x[0].numel() // (how.width * how.sets))
        self.x, self.stats = (x[:split], x[split:]), ([s[:rows] for s in stats], [s[rows:] for s in stats])
        return y.to(self.out)

    def pullback(self, delta, rows):
        delta = delta.to(self.dtype).contiguous()
        split = len(delta) - len(self.x[1])
        self.delta = delta[split:]
        pulled, *self.sums = self._pull(delta[:split], 0, x_asked=not rows.start, weights_asked=True)
        hat, *_ = self._pull(self.delta, 1)
        return [(hat if rows.start else torch.cat([pulled, hat])).to(self.given)]

    def pushforward(self, t):
        how, asked = self.how, (True, True, self._weights()[0] is not None)
        args = self.wide, *self.stats[1], how.width, how.sets, how.centered, *asked
        t = t.to(self.dtype).contiguous()
        pushed, self.bent, *sums = how.leaves.layer_norm_bwd_bwd(t, self.delta, self.x[1], *args)
        self._add(sums)
        return pushed.to(self.out)

    def curvature(self, r, wanted):
        if r is not None:
            pulled, *sums = self._pull(r.to(self.dtype).contiguous(), 1, x_asked=wanted, weights_asked=True)
            self._add(sums)
            if wanted:
                self.bent.add_(pulled)
        return [self.bent.to(self.given) if wanted else None]

    def gradients(self):
        given = zip(self._weights(), self.sums, strict=True)
        return [(w, self.how.gather(total, w)) for w, total in given if w is not None and w.requires_grad]

    def _weights(self):
        return self.module.weight, getattr(self.module, "bias", None)

    def _pull(self, delta, part, x_asked=True, weights_asked=False):
        """Jᵀδ, and the gradients of w and b in ⟨δ, y⟩, of the real and fake samples or of the interpolated ones."""
        args = self.how.width, self.how.sets, self.how.centered, x_asked, weights_asked
        return self.how.leaves.layer_norm_bwd(delta, self.x[part], self.wide, *self.stats[part], *args)

    def _add(self, sums):
        for total, more in zip(self.sums, sums, strict=False):
            if more.numel():
                total += more


def _rows(module, x):
    """How the samples x are normalised by a module."""
    if isinstance(module, nn.LayerNorm):
        return norm.layer_rows(x, torch.Size(module.normalized_shape), module.eps)
    if isinstance(module, nn.RMSNorm):
        eps = torch.finfo(x.dtype).eps if module.eps is None else module.eps
        return norm.layer_rows(x, torch.Size(module.normalized_shape), eps, centered=False)
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else module.num_features
    return norm.group_rows(x, groups, module.eps)
