"""How a critic's samples go: through a program, and before it what no sample goes through."""

import torch

from .program import summed


class Way:
    """A ``Program``, before which an ``Outside``, if any, is run. gone: of which kinds samples have gone it."""

    def __init__(self, program, outside):
        self.program, self.outside, self.gone = program, outside, set()

    def results(self, x, tensors):
        """What the outside comes to, with its graph. x: the samples. tensors: what the critic is given beside them."""
        if self.outside is None:
            return []
        with torch.enable_grad():
            return self.outside.run(x, tensors)

    def weights(self, results):
        """[(Weight, what a layer has computed for it)]"""
        return [] if self.outside is None else self.outside.weights(results)

    def through(self, results, received, params):
        """[(parameter, gradient)] of what the program's nodes have received: of results it goes on to who made them.

        results: those that the nodes were given. params: all that the critic has.
        """
        if not results:
            return received
        made = {id(result) for result in results}
        of_results = [(result, grad) for result, grad in received if id(result) in made]
        if not of_results:
            return received
        received = [(param, grad) for param, grad in received if id(param) not in made]
        results, grads = zip(*of_results, strict=True)
        wanted = [param for param in params if param.requires_grad]
        found = torch.autograd.grad(results, wanted, grads, retain_graph=True, allow_unused=True)
        return summed([*received, *((p, grad) for p, grad in zip(wanted, found, strict=True) if grad is not None)])
