"""What a critic makes of tensors beside its samples, of labels above all: the part of its graph that no sample goes
through is run at each call, by autograd, and what it comes to is given to the nodes behind.
"""

import torch
import torch.nn.functional as F
from torch import nn

from . import effects, in_place, pure
from .computed import Weight
from .graph import run
from .kinds import FUNCTIONS, module_node
from .program import Refused

_METHODS = frozenset(
    {
        *("contiguous", "expand", "expand_as", "flatten", "float", "permute", "repeat", "reshape", "size", "squeeze"),
        *("to", "transpose", "unflatten", "unsqueeze", "view"),
    }
)
_ATTRIBUTES = ("shape", "dtype", "device")
# Those that no program's node is known for.
OF_OTHERS = (torch.cat, torch.concat, torch.mul, F.one_hot)


class Outside:
    """samples: the placeholder. given: those of the tensors. nodes: in order, among them sizes of the samples.
    tensors: {an fx node, or itself: Weight}
    """

    def __init__(self, critic, samples, given):
        self.critic, self.samples, self.given, self.nodes, self.results = critic, samples, given, [], []
        self.made = {samples, *given}  # what may be read; of the samples what is not their values
        self.modules, self.tensors = {}, {}

    def takes(self, node):
        """Whether a node belongs here, which is then noted."""
        reads = set(node.all_input_nodes)
        if not reads <= self.made or (self.samples in reads and not _is_about(node, self.samples)):
            return False
        self.made.add(node)
        if node.op == "get_attr":
            of, _, name = node.target.rpartition(".")
            self.tensors[node] = Weight(self.critic.get_submodule(of), name)
        else:
            self._check(node)
            self.nodes.append(node)
        return True

    def gave(self, node):
        return node in self.made and node is not self.samples

    def place_of(self, node):
        """Where ``run`` returns what a node comes to."""
        if node not in self.results:
            self.results.append(node)
        return self.results.index(node)

    def place_of_weight(self, module, name):
        """The same of what a layer computes for its weight."""
        weight = Weight(module, name)
        self.tensors[weight] = weight
        return self.place_of(weight)

    def weights(self, results):
        """[(Weight, what a layer has computed for it)]"""
        return [(node, result) for node, result in zip(self.results, results, strict=True) if isinstance(node, Weight)]

    def finished(self):
        """Leaves out what nobody reads. Returns itself, or None where nothing is left."""
        self.critic, wanted = None, set(self.results)
        for node in reversed(self.nodes):
            if node in wanted:
                wanted.update(node.all_input_nodes)
        self.nodes = [node for node in self.nodes if node in wanted]
        self.tensors = {node: weight for node, weight in self.tensors.items() if node in wanted}
        return self if self.results else None

    def run(self, x, given):
        """What the nodes behind are given.

        Raises:
            Refused: where that is no tensor.
        """
        found = {node: weight.compute() for node, weight in self.tensors.items()}
        found |= {self.samples: x, **dict(zip(self.given, given, strict=True))}
        run(self.nodes, found, self.modules)
        results = [found[node] for node in self.results]
        if not all(isinstance(result, torch.Tensor) for result in results):
            raise Refused("it reckons with numbers of its samples' shape")
        return results

    def check_is_the_same_at_each_call(self):
        """
        Raises:
            Refused: where a second call with the same tensors may come to something else, or follows something.
        """
        for node in self.nodes:
            if not effects.has_none(node, self.modules.get(node.target)):
                raise Refused(f"{node.name}: may come to something else at each call")

    def _check(self, node):
        if in_place.is_in_place(self.critic, node):
            raise Refused(f"{node.name}: works in place on what no sample goes through")
        if node.op == "call_module":
            self.modules[node.target] = module = self.critic.get_submodule(node.target)
            if type(module) is not nn.Embedding or module.max_norm is not None or module.sparse:
                module_node(node.target, module)
        elif node.op == "call_method" and node.target not in _METHODS:
            raise Refused(f"{node.name}: {node.target} of what no sample goes through")
        elif node.op == "call_function" and node.target is getattr and node.args[1] not in _ATTRIBUTES:
            raise Refused(f"{node.name}: {node.args[1]} of what no sample goes through")


def _is_about(node, samples):
    """Whether a node reads of the samples what has nothing to do with their values, and of nothing else."""
    if node.all_input_nodes != [samples]:
        return False
    if node.op == "call_method":
        return node.target == "size"
    return node.op == "call_function" and node.target is getattr and node.args[1] in _ATTRIBUTES


def functions():
    """All that an outside may call."""
    return (*FUNCTIONS, *OF_OTHERS, *pure.FUNCTIONS, torch.add)
