"""Operations that write over their input. A program computes them apart: nobody else may read what they write over."""

import inspect
import operator

from torch import fx, nn

from .program import Refused

# h += y and the like, and what they are to others.
AUGMENTED = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
# What may return a part of its input's memory.
_VIEWS = frozenset({"flatten", "squeeze", "unsqueeze", "unflatten", "view", "reshape"})
_VIEWING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.modules.dropout._DropoutNd)


class Proxy(fx.Proxy):
    """Sees h += y as what it is; fx takes it for h + y."""


def _augmented(function):
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


for _function in AUGMENTED:
    setattr(Proxy, f"__{_function.__name__}__", _augmented(_function))


def check(critic, graph):
    """
    Raises:
        Refused: where an operation in place changes what another one reads, or the samples themselves.
    """
    for node in graph.nodes:
        if is_in_place(critic, node):
            _check_alone(critic, node)


def check_first(layers):
    """
    Raises:
        Refused: where the first of some layers in a row, [(name, Module)], changes the samples.
    """
    for name, layer in layers:
        if getattr(layer, "inplace", False):
            raise Refused(f"{name}: works in place on the samples")
        if not isinstance(layer, _VIEWING):
            return


def is_in_place(critic, node):
    if node.op == "call_module":
        return bool(getattr(critic.get_submodule(node.target), "inplace", False))
    if node.op == "call_method":
        return node.target.endswith("_")
    return node.op == "call_function" and (node.target in AUGMENTED or _asked_to(node))


def _asked_to(node):
    """By ``inplace``, wherever it stands among the arguments."""
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # a function of C, which has no such argument but a name
        return node.target.__name__.endswith("_")
    return bool(given.get("inplace"))


def _check_alone(critic, node):
    """That the node is the only reader of its input, and of whatever shares memory with that."""
    if not node.users:
        raise Refused(f"{node.name}: works in place, and its result is not used")
    source = node.args[0] if node.args else None
    while isinstance(source, fx.Node):
        if source.op == "placeholder":
            raise Refused(f"{node.name}: works in place on the samples")
        if len(source.users) > 1:
            raise Refused(f"{node.name}: works in place on {source.name}, which is read again")
        if not _shares(critic, source):
            return
        source = source.args[0]


def _shares(critic, node):
    """Whether its result may lie in the memory of its first argument."""
    if is_in_place(critic, node):
        return True
    if node.op == "call_module":
        return isinstance(critic.get_submodule(node.target), _VIEWING)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in _VIEWS
