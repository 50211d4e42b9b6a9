"""From a module to a program, or a refusal that names what stands in the way."""

import operator

import torch
from torch import fx, nn

from . import effects, in_place, perceptron, transparent
from .computed import computed_by, has_other_hooks
from .flatten import Flatten
from .given import Cat, Scale, Shift
from .graph import Tracer, graph_of, graph_of_closure, is_layer
from .kinds import LAYER_FUNCTIONS, function_node, layer_node, module_node
from .nodes import Join, Linear, Reshape
from .outside import Outside, functions
from .program import Program, Refused
from .region import Regions, check_worth
from .shaped import ShapedTracer
from .way import Way

_SHAPES = ("flatten", "squeeze", "unsqueeze", "unflatten")
_ADDITIONS = (operator.add, torch.add)
_PRODUCTS = (operator.mul, torch.mul)


def trace(critic, samples=None, given=0):
    """The ``Way`` of a critic's samples.

    given: how many tensors it is called with beside them.
    samples: for samples of this shape alone, the critic's Python may ask for it, and ``Region`` nodes may couple them.

    Raises:
        Refused: with the name of the module or operation that it cannot be made of.
    """
    if not isinstance(critic, nn.Module):
        raise Refused(f"the critic is a {type(critic).__name__}, not a Module")
    _check_all(critic)
    if _is_chain(critic) and samples is None and not given:
        return _way(_steps_of_chain(critic), None)
    critic = nn.Sequential(critic) if is_layer(critic) else critic
    return _of_graph(critic, lambda tracer: graph_of(critic, tracer, given), samples)


def trace_step(critic, given=0):
    """The same for real, fake and interpolated samples that go through it together.

    Raises: as ``trace``.
    """
    way = trace(critic, given=given)
    for node, _ in way.program.steps:
        if node.apart is not None:
            raise Refused(f"{node.name} ({node.what}) {node.apart}")
    if way.outside is not None:
        way.outside.check_is_the_same_at_each_call()
    return way


def trace_closure(closure, samples=None):
    """The same of a ``Closure``."""
    within = nn.Module()
    for index, module in enumerate({id(module): module for module in closure.modules}.values()):
        within.add_module(str(index), module)
    _check_all(within)
    return _of_graph(within, lambda tracer: graph_of_closure(closure, within, tracer), samples)


def _of_graph(critic, graph_by, samples):
    if samples is None:
        steps, outside = _steps(critic, graph_by(Tracer()), None)
    else:
        with torch.random.fork_rng([]):  # layers without data draw
            steps, outside = _steps(critic, graph_by(ShapedTracer(samples)), Regions)
        check_worth(steps)
    return _way(steps, outside)


def _way(steps, outside):
    if not steps:
        raise Refused("it has no operation")
    return Way(Program(steps, perceptron.recognised(steps)), outside)


def _steps(critic, graph, regions_of):
    in_place.check(critic, graph)
    effects.leave_out_what_nobody_reads(critic, graph)
    samples, *given = (node for node in graph.nodes if node.op == "placeholder")
    outside, sizes, values, steps = Outside(critic, samples, given), set(), {samples: 0}, []
    regions = None if regions_of is None else regions_of(critic, outside, samples)
    batch = None if regions is None else regions.batch

    def known(node):
        return _given(node, outside) or _node(critic, node, outside, batch)

    def add(node, made, sources):
        places = [place_of(source) for source in sources]
        steps.append((made, places))
        values[node] = len(steps)

    def place_of(node):
        if node not in values and regions is not None and node in regions.nodes:
            add(node, *regions.region(node))
        if node not in values:
            raise Refused(f"{node.name}: is no value of the samples")
        return values[node]

    for node in graph.nodes:
        if node.op == "output":
            (result,) = node.args
            if not isinstance(result, fx.Node) or outside.gave(result) or place_of(result) != len(steps):
                raise Refused("what it returns is not the result of its last operation")
        elif node.op == "placeholder":
            continue
        elif outside.takes(node):
            effects.check_order(critic, node, steps)
        elif _is_size(node, sizes):
            sizes.add(node)  # read where it is used
        elif regions is None:
            add(node, *known(node))
        elif (found := regions.known(node, known)) is not None:
            add(node, *found)
    return steps, outside.finished()


def _is_size(node, sizes):
    """y.size(…), y.shape, and what is made of such numbers alone."""
    if node.op == "call_method":
        return node.target == "size"
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] == "shape"
    return node.op == "call_function" and bool(node.all_input_nodes) and sizes.issuperset(node.all_input_nodes)


def _is_chain(critic):
    """Whether it is a Sequential of torch's layers and of other such Sequentials, with nobody else's Python in it."""
    return type(critic) is nn.Sequential and all(
        type(part) is nn.Sequential
        or (type(part).__module__.startswith("torch.nn.") and not part._modules and not computed_by(part))
        for part in critic.modules()
    )


def reads(critic):
    """See ``transparent.read``. None where its Python has to run, as it may do more than put layers together."""
    if is_layer(critic):
        return None
    return [] if _is_chain(critic) else transparent.read(critic, functions())


def reads_of_closure(closure):
    """The same of a ``Closure``."""
    return transparent.read_closure(closure, functions())


def _steps_of_chain(critic):
    """The same without fx, whose graph takes longer to make."""
    layers = list(_layers(critic))
    in_place.check_first(layers)
    return [(module_node(*layer), [i]) for i, layer in enumerate(layers)]


def _layers(critic, above=""):
    """[(name, layer)] of a chain."""
    for name, module in critic._modules.items():
        if type(module) is nn.Sequential:
            yield from _layers(module, f"{above}{name}.")
        else:
            yield above + name, module


def has_hooks(module):
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


def has_own_forward(module):
    return "forward" in vars(module)


def _check_all(critic):
    for name, module in critic.named_modules():
        _check(name or type(critic).__name__, module)
    for name, param in critic.named_parameters():
        if param._backward_hooks or param._post_accumulate_grad_hooks:
            raise Refused(f"{name} has hooks, which a program would not call")


def _check(name, module):
    if has_other_hooks(module):
        raise Refused(f"{name} has hooks, which a program would not call")
    if has_own_forward(module):
        raise Refused(f"{name} was given another forward, which a program would not call")


def _given(node, outside):
    """Of an operation of a value and of what is given from outside likewise; None for others."""
    name, function = node.name, in_place.AUGMENTED.get(node.target, node.target)
    if node.op != "call_function":
        return None
    if function in (torch.cat, torch.concat) and node.kwargs.keys() <= {"tensors", "dim"}:
        return _cat(name, outside, *node.args, **node.kwargs)
    if function in LAYER_FUNCTIONS:
        return _layer(name, function, outside, *node.args, **node.kwargs)
    kind = Shift if function in _ADDITIONS else Scale if function in _PRODUCTS else None
    if kind is None or len(node.args) != 2 or node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args):
        return None
    inner = [arg for arg in node.args if not outside.gave(arg)]
    if len(inner) != 1:
        return None
    (given,) = (arg for arg in node.args if arg is not inner[0])
    return kind(name, outside.place_of(given)), inner


def _layer(name, function, outside, input, weight, bias=None, *settings, **named):
    given = {name: node for name, node in (("weight", weight), ("bias", bias)) if node is not None}
    if outside.gave(input) or not all(map(outside.gave, given.values())):
        return None
    if any(isinstance(value, fx.Node) for value in (*settings, *named.values())):
        return None
    places = {name: outside.place_of(node) for name, node in given.items()}
    made = layer_node(name, function, settings, named, places)
    return None if made is None else (made, [input])


def _cat(name, outside, tensors, dim=0):
    inner = [part for part in tensors if not outside.gave(part)]
    if len(inner) != 1:
        return None
    places = [outside.place_of(part) for part in tensors if part is not inner[0]]
    return Cat(name, places, tensors.index(inner[0]), dim), inner


def _node(critic, node, outside, batch):
    """(the program's node, the fx nodes of the values that it reads)"""
    sources = list(node.all_input_nodes)
    if node.op == "call_module":
        module = critic.get_submodule(node.target)
        if len(sources) != 1 or node.kwargs:
            raise Refused(f"{node.target} is called with more than one tensor")
        computed = {name: outside.place_of_weight(module, name) for name in computed_by(module)}
        return module_node(node.target, module, computed), sources
    name, function = node.name, in_place.AUGMENTED.get(node.target, node.target)
    if node.op == "call_function" and function in _ADDITIONS:
        if len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args) and not node.kwargs:
            return Join(name, "add"), list(node.args)
    elif node.op == "call_function":
        made = function_node(name, function, node.args[1:], node.kwargs)
        if made is not None and len(sources) == 1:
            return made, sources
    elif node.op == "call_method" and node.target in _SHAPES and len(sources) == 1:
        kind = Flatten if node.target == "flatten" and node.args[1:] == (1,) and not node.kwargs else Reshape
        return kind(name, node.target, lambda x: getattr(x, node.target)(*node.args[1:], **node.kwargs)), sources
    elif node.op == "call_method" and node.target in ("mean", "sum") and len(sources) == 1 and _knows(node.kwargs):
        return Linear(
            name, node.target, lambda x: _within_samples(x, node.target, *node.args[1:], **node.kwargs)
        ), sources
    elif node.op == "call_method" and node.target in ("view", "reshape") and _keeps_batch(node, batch):
        return Reshape(name, node.target, _reshape(node.args[2:])), sources[:1]
    raise Refused(f"{name}: no sweeps are known for {getattr(node.target, '__name__', node.target)}")


def _keeps_batch(node, batch):
    """x.view(x.size(0), …), x.view(x.shape[0], …) and x.view(-1, …), of which the sizes behind have to be numbers."""
    first, *rest = node.args[1:]
    is_size = first in (-1, batch) or (isinstance(first, fx.Node) and first.target in ("size", operator.getitem))
    return is_size and not node.kwargs and all(isinstance(size, int) for size in rest)


def _knows(named):
    return named.keys() <= {"dim", "keepdim"}


def _within_samples(x, reduction, dim=None, keepdim=False):
    """A mean or a sum over dimensions that the batch is not one of."""
    dims = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    if any(d % x.dim() == 0 for d in dims):
        raise Refused(f"{reduction}: goes over the batch, which couples the samples")
    return getattr(x, reduction)(list(dims), keepdim=keepdim)


def _reshape(sizes):
    return lambda x: x.reshape(x.shape[0], *sizes)
