"""An operation that no sweeps are written for, as a node of a program."""

import torch

from ..second_order import second_order
from .nodes import Node


class Island(Node):
    """Any other operation on samples, differentiated by autograd and the rules, by itself alone."""

    takes_tangent = True
    saved = ("x", "y", "x_hat", "y_hat", "delta_hat", "pulled_hat", "bent", "sums", "params")

    def __init__(self, name, what, call, module=None, curved=True):
        super().__init__(name, what)
        self.call, self.module = call, module
        self.curved = self.bends = curved
        self.forget()

    def forward(self, split, x):
        self.split = split
        self.params = [] if self.module is None else [p for p in self.module.parameters() if p.requires_grad]
        with torch.enable_grad(), second_order():
            self.x, self.x_hat = x[:split].detach().requires_grad_(), x[split:].detach().requires_grad_()
            self.y, self.y_hat = self.call(self.x), self.call(self.x_hat)
        return torch.cat([self.y.detach(), self.y_hat.detach()])

    def pullback(self, delta, rows):
        split = self.split
        pulled, *self.sums = torch.autograd.grad(self.y, [self.x, *self.params], delta[:split])
        self.delta_hat = delta[split:].detach().requires_grad_()
        with torch.enable_grad():
            (self.pulled_hat,) = torch.autograd.grad(self.y_hat, self.x_hat, self.delta_hat, create_graph=True)
        hat = self.pulled_hat.detach()
        return [torch.cat([pulled, hat]) if rows is None else hat]

    def pushforward(self, t):
        wanted = [self.delta_hat, self.x_hat, *self.params]
        pushed, self.bent, *grads = torch.autograd.grad(
            self.pulled_hat, wanted, t, retain_graph=True, allow_unused=True
        )
        self._add(grads)
        return torch.zeros_like(self.delta_hat) if pushed is None else pushed

    def curvature(self, r, wanted):
        bent = self.bent
        if r is not None:
            pulled, *grads = torch.autograd.grad(self.y_hat, [self.x_hat, *self.params], r)
            self._add(grads)
            bent = pulled if bent is None else pulled + bent
        return [bent if wanted else None]

    def gradients(self):
        received = zip(self.params, self.sums, strict=True)
        if self.split or self.bent_behind:
            return list(received)
        bias = getattr(self.module, "bias", None)  # autograd has no way to it
        return [(param, grad) for param, grad in received if param is not bias]

    def _add(self, grads):
        self.sums = [s if g is None else s + g for s, g in zip(self.sums, grads, strict=True)]
