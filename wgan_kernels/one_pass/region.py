"""Operations that no sweeps are written for, all together as one node of a program."""

import operator

import torch

from .. import _layout
from . import in_place
from .graph import run
from .layer import Layer
from .nodes import Node
from .program import Refused
from .pure import is_pure
from .shaped import value_of

_ELEMENTWISE = (operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul)


class Regions:
    """What a critic has of them. critic: where the modules are that nodes name; outside: an ``Outside``."""

    def __init__(self, critic, outside, samples):
        self.critic, self.outside, self.nodes = critic, outside, {}  # in the graph's order
        self.batch = len(value_of(samples))

    def known(self, node, make):
        """make(node), or None where it is taken for a part of a region.

        Raises:
            Refused: where it is neither.
        """
        if not self._is_of_samples(node):
            if self._takes(node):
                return None
            raise Refused(f"{node.name}: no sweeps are known for {node.target} of what has no row for each sample")
        try:
            return make(node)
        except Refused:
            if self._takes(node):
                return None
            raise

    def _takes(self, node):
        module = self.critic.get_submodule(node.target) if node.op == "call_module" else None
        writes = in_place.is_in_place(self.critic, node) and node.target not in in_place.AUGMENTED
        if writes or not is_pure(node, module):
            return False
        self.nodes[node] = module
        return True

    def _is_of_samples(self, node):
        """Whether what it reads and returns has a row for each sample, and one shape where it is a sum or a product."""
        values = [value_of(each) for each in (node, *node.all_input_nodes) if not self.outside.gave(each)]
        if not all(isinstance(value, torch.Tensor) and value.shape[:1] == (self.batch,) for value in values):
            return False
        return node.target not in _ELEMENTWISE or len({value.shape for value in values}) == 1

    def region(self, node):
        """(the ``Region`` that ends in a node, the fx nodes of the values that it reads)"""
        wanted, sources = {node}, {}
        for each in reversed(self.nodes):
            if each in wanted:
                wanted.update(source for source in each.all_input_nodes if source in self.nodes)
                sources.update(dict.fromkeys(source for source in each.all_input_nodes if source not in self.nodes))
        given = [source for source in sources if self.outside.gave(source)]
        values = [source for source in sources if not self.outside.gave(source)]
        part = [each for each in self.nodes if each in wanted]
        modules = {each.target: self.nodes[each] for each in part if self.nodes[each] is not None}
        return Region(part, values, given, list(map(self.outside.place_of, given)), modules), values


def check_worth(steps):
    """
    Raises:
        Refused: where regions cost more than the layers between them gain. A penalty of four convolutions with
            minibatch statistics takes 0.85 of the time of its calls, with 8 or 64 samples; of three linear layers with
            activations that are regions 1.25 with 8, 1.07 with 64 (two cores, AMD EPYC).
    """
    regions = sum(isinstance(node, Region) for node, _ in steps)
    convolutions = sum(isinstance(node, Layer) and node.how is not None for node, _ in steps)
    if 2 * regions > convolutions:
        raise Refused("too much of it has no sweeps of its own")


class Region(Node):
    """Any function of all samples, differentiated by autograd, by itself alone.

    nodes: what it does. values, given: the fx nodes of what it reads, of the samples and from outside; places: where
    the ``Outside`` returns the latter. modules: {target: Module}, those that it calls, without parameters.
    """

    apart = "is not known to treat each sample by itself"
    takes_tangent = True
    saved = ("given", "learnt", "xs", "y", "delta", "pulled", "bent", "sums")

    def __init__(self, nodes, values, given, places, modules):
        super().__init__(nodes[-1].name, "region")
        self.nodes, self.reads, self.modules = nodes, (*values, *given), modules
        self.places = self.keeps = places
        self.curved = self.bends = self._bends()
        self.forget()

    def give(self, results, times):
        self.given = [results[place] for place in self.places]

    def forward(self, split, *xs):
        self.given = self.given or []
        self.learnt = [tensor for tensor in self.given if tensor.requires_grad]
        self.xs = [x.detach().requires_grad_() for x in xs]
        with torch.enable_grad():
            self.y = y = self._of((*self.xs, *self.given))
        images = [x for x in xs if x.dim() == 4] if y.dim() == 4 else []
        is_last = any(_layout.memory_format(x) is torch.channels_last for x in images)
        return _layout.channels_last(y.detach()) if is_last else y.detach().contiguous()

    def pullback(self, delta, rows):
        self.delta = delta.detach().requires_grad_()
        with torch.enable_grad():
            pulled = torch.autograd.grad(self.y, self.xs, self.delta, create_graph=True, allow_unused=True)
        self.pulled = [torch.zeros_like(x) if p is None else p for p, x in zip(pulled, self.xs, strict=True)]
        return self._in_memory(self.pulled)

    def pushforward(self, *ts):
        pairs = [(p, t) for p, t in zip(self.pulled, ts, strict=True) if p.requires_grad]
        pushed, found = None, [None] * (len(self.xs) + len(self.learnt))
        if pairs:
            (pulled, ts), wanted = zip(*pairs, strict=True), [self.delta, *self.xs, *self.learnt]
            pushed, *found = torch.autograd.grad(pulled, wanted, ts, retain_graph=True, allow_unused=True)
        self.bent, self.sums = found[: len(self.xs)], found[len(self.xs) :]
        return torch.zeros_like(self.delta) if pushed is None else _alike(self.delta, pushed)

    def curvature(self, r, wanted):
        if r is not None:
            found = torch.autograd.grad(self.y, [*self.xs, *self.learnt], r, allow_unused=True)
            self.bent, self.sums = (
                [b if a is None else a if b is None else a + b for a, b in zip(before, more, strict=True)]
                for before, more in ((self.bent, found[: len(self.xs)]), (self.sums, found[len(self.xs) :]))
            )
        return self._in_memory(self.bent) if wanted else [None] * len(self.xs)

    def gradients(self):
        received = zip(self.learnt, self.sums, strict=True)
        if self.bent_behind:  # autograd would have a way to all of them
            received = ((tensor, torch.zeros_like(tensor) if grad is None else grad) for tensor, grad in received)
        return [(tensor, grad) for tensor, grad in received if grad is not None]

    def _of(self, tensors):
        found = dict(zip(self.reads, tensors, strict=True))
        run(self.nodes, found, self.modules)
        return found[self.nodes[-1]]

    def _in_memory(self, grads):
        return [None if grad is None else _alike(x, grad.detach()) for x, grad in zip(self.xs, grads, strict=True)]

    def _bends(self):
        """Whether autograd finds that its derivative depends on the samples; it is asked by tensors without data."""
        tensors, y = [value_of(node) for node in self.reads], value_of(self.nodes[-1])
        if not all(isinstance(tensor, torch.Tensor) for tensor in (y, *tensors)):
            raise Refused(f"{self.name}: the shape of what it reads or returns is not known")
        tensors = [torch.empty_like(tensor, requires_grad=True) for tensor in tensors]
        xs = tensors[: len(tensors) - len(self.places)]
        with torch.enable_grad():
            y = self._of(tensors)
            pulled = torch.autograd.grad(y, xs, torch.ones_like(y), create_graph=True, allow_unused=True)
            pulled = [p.sum() for p in pulled if p is not None and p.requires_grad]
        bent = torch.autograd.grad(pulled, xs, allow_unused=True) if pulled else []
        return any(r is not None for r in bent)


def _alike(x, grad):
    return grad.contiguous(memory_format=_layout.memory_format(x))
