"""Batch normalisation by the batch's own statistics as a node of a program, by the formulas of rules/batch_norm.py."""

import contextlib

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..rules import batch_norm
from .nodes import Node
from .program import Refused


class BatchNorm(Node):
    """All samples normalised together, each channel by itself: y = x̂·w + b, and J = Jᵀ = w·P."""

    apart = "normalises over the batch, which couples the samples"
    curved = bends = gives = pulls = takes_tangent = True
    saved = ("x", "params", "delta", "stats", "bent", "sums")

    def __init__(self, name, module):
        super().__init__(name, type(module).__name__)
        self.module = module
        self.forget()

    def forward(self, split, x):
        module = self.module
        weight, bias = self.params = module.weight, module.bias
        if not batch_norm.serves(x, module.running_mean, module.running_var, weight, bias):
            raise Refused(f"{self.name} ({self.what}): no sweeps are known for {tuple(x.shape)} in this precision")
        try:
            module._check_input_dim(x)
        except ValueError as error:
            raise Refused(f"{self.name}: {error}") from error
        self.x, running, momentum = x, (None, None), 0.0
        if module.training and module.track_running_stats:
            running, momentum = (module.running_mean, module.running_var), _followed(module)
        y, *self.stats = batch_norm.forward(x, weight, bias, running, momentum, module.eps)
        return y

    def pullback(self, delta, rows):
        self.delta = delta
        return [self._pull(delta, True)[0]]

    def pushforward(self, t):
        weight = self.params[0]
        pushed, self.bent, of_weight = batch_norm.second(t, self.delta, self.x, weight, *self.stats, self.module.eps)
        self.sums = [of_weight, torch.zeros_like(of_weight)]
        return pushed

    def curvature(self, r, wanted):
        if r is not None:
            has_weight, has_bias = (param is not None for param in self.params)
            pulled, *more = self._pull(r, wanted, has_weight, has_bias)
            self.sums = [total if one is None else total + one for total, one in zip(self.sums, more, strict=True)]
            if wanted:
                self.bent += pulled
        return [self.bent if wanted else None]

    def gradients(self):
        weight, bias = self.params
        received = []
        if weight is not None and weight.requires_grad:
            received.append((weight, self.sums[0]))
        if bias is not None and bias.requires_grad and self.bent_behind:  # else autograd has no way to it
            received.append((bias, self.sums[1]))
        return received

    def _pull(self, delta, *asked):
        asked = [*asked, False, False][:3]
        return batch_norm.pullback(delta, self.x, self.params[0], *self.stats, self.module.eps, asked)


@contextlib.contextmanager
def not_following(modules):
    """For a while none of them counts batches, nor has running statistics that follow them."""
    norms = [m for m in modules if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


def _followed(module):
    """Counts the batch. Returns by how much the running statistics follow it."""
    if module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if module.momentum is None:
            return 1.0 / float(module.num_batches_tracked)
    return 0.0 if module.momentum is None else module.momentum
