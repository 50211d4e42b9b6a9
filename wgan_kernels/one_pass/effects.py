"""Whether what a critic calls does anything else than to return something, which is the same at the next call."""

import operator

import torch.nn.functional as F
from torch import nn

from . import pure
from .computed import computed_by
from .kinds import LAYER_FUNCTIONS, function_node, module_node
from .program import Refused

_METHODS = frozenset({"dim", "float", "size", "to", *pure.METHODS})
_FUNCTIONS = frozenset({getattr, operator.floordiv, F.one_hot, *LAYER_FUNCTIONS})


def leave_out_what_nobody_reads(critic, graph):
    """
    Raises:
        Refused: where the critic would draw random numbers by it, or follow its samples.
    """
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            if not has_none(node, _module(critic, node)):
                raise Refused(f"{node.name}: nobody reads what it returns, but it may draw, or follow its samples")
            graph.erase_node(node)


def check_order(critic, node, steps):
    """
    Raises:
        Refused: where a node of the ``Outside``, which is run first, would draw before its turn.
    """
    if any(made.draws or made.apart for made, _ in steps) and not has_none(node, _module(critic, node)):
        raise Refused(f"{node.name}: its turn comes behind what is done to the samples")


def has_none(node, module):
    """Of an fx node. module: where it calls one. False where that is not known."""
    if node.op == "call_module":
        return _layer_has_none(module)
    if node.op == "call_method":
        return node.target in _METHODS
    if node.op != "call_function" or node.target in _FUNCTIONS or pure.is_pure(node, None):
        return True
    made = function_node(node.name, node.target, node.args[1:], node.kwargs)
    return made is not None and _is_the_same(made)


def _module(critic, node):
    return critic.get_submodule(node.target) if node.op == "call_module" else None


def _layer_has_none(module):
    if type(module) is nn.Embedding:
        return module.max_norm is None
    if type(module) in pure.MODULES:
        return True
    try:
        return _is_the_same(module_node("", module, dict.fromkeys(computed_by(module))))
    except Refused:
        return False


def _is_the_same(made):
    """Of a program's node."""
    return made.apart is None and not made.draws
