"""From a module to a program, or a refusal that names what stands in the way."""

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..rules import activation, conv
from . import in_place, perceptron, transparent
from .flatten import Flatten, Matrix
from .graph import graph_of
from .island import Island
from .nodes import Join, Layer, Linear, Piecewise, Reshape
from .norm import Norm
from .program import Program, Refused

# Modules that treat each sample by itself. Linear in it:
_AVERAGING = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_LINEAR = (
    nn.Upsample,
    nn.UpsamplingNearest2d,
    nn.UpsamplingBilinear2d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
)
# Piecewise linear:
_BENT = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.PReLU)
# Curved:
_CURVED = (
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.SiLU,
    nn.GELU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.Mish,
    nn.LogSigmoid,
    nn.Softsign,
)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = {nn.Conv1d: False, nn.Conv2d: False, nn.Conv3d: False}
_CONVOLUTIONS |= {nn.ConvTranspose1d: True, nn.ConvTranspose2d: True, nn.ConvTranspose3d: True}
_ELEMENTWISE = {torch.tanh: "tanh", torch.sigmoid: "sigmoid", F.tanh: "tanh", F.sigmoid: "sigmoid", F.silu: "silu"}
_ELEMENTWISE |= {F.gelu: "gelu", F.softplus: "softplus", F.elu: "elu"}
_AVERAGES = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool2d)
_SHAPES = ("flatten", "squeeze", "unsqueeze", "unflatten")
_ADDITIONS = (operator.add, torch.add)
_FUNCTIONS = (F.relu, torch.relu, F.leaky_relu, torch.flatten, torch.add, F.pixel_unshuffle, *_AVERAGES, *_ELEMENTWISE)


def trace(critic):
    """The critic's ``Program``.

    Raises:
        Refused: with the name of the module or operation that it cannot be made of.
    """
    if not isinstance(critic, nn.Module):
        raise Refused(f"the critic is a {type(critic).__name__}, not a Module")
    for name, module in critic.named_modules():
        _check(name or type(critic).__name__, module)
    for name, param in critic.named_parameters():
        if param._backward_hooks or param._post_accumulate_grad_hooks:
            raise Refused(f"{name} has hooks, which a program would not call")
    steps = _steps_of_chain(critic) if _is_chain(critic) else _steps_by_fx(critic)
    if not steps:
        raise Refused("it has no operation")
    return Program(steps, perceptron.recognised(steps))


def _steps_by_fx(critic):
    if _is_layer(critic):
        critic = nn.Sequential(critic)
    graph = graph_of(critic)
    in_place.check(critic, graph)
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    steps, values, sizes = [], {}, set()

    def _is_size(node):
        """x.size(…), x.shape, and what is made of such numbers alone."""
        if node.op == "call_method":
            return node.target == "size"
        if node.op == "call_function" and node.target is getattr:
            return node.args[1] == "shape"
        return node.op == "call_function" and bool(node.all_input_nodes) and sizes.issuperset(node.all_input_nodes)

    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = 0
        elif node.op == "output":
            if values.get(node.args[0]) != len(steps):
                raise Refused("what it returns is not the result of its last operation")
        elif _is_size(node):
            sizes.add(node)  # read where it is used
        else:
            made, sources = _node(critic, node)
            steps.append((made, [values[source] for source in sources]))
            values[node] = len(steps)
    return steps


def _is_layer(critic):
    """Whether it is one of torch's own, whose forward is not looked into."""
    return fx.Tracer().is_leaf_module(critic, "")


def _is_chain(critic):
    """Whether it is a Sequential of torch's layers and of other such Sequentials, with nobody else's Python in it."""
    return type(critic) is nn.Sequential and all(
        type(part) is nn.Sequential or (type(part).__module__.startswith("torch.nn.") and not part._modules)
        for part in critic.modules()
    )


def reads(critic):
    """See ``transparent.read``. None where its Python has to run, as it may do more than put layers together."""
    if _is_layer(critic):
        return None
    return [] if _is_chain(critic) else transparent.read(critic, _FUNCTIONS)


def _steps_of_chain(critic):
    """The same without fx, whose graph takes longer to make."""
    layers = list(_layers(critic))
    in_place.check_first(layers)
    return [(_module(*layer), [i]) for i, layer in enumerate(layers)]


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


def _check(name, module):
    if has_hooks(module):
        raise Refused(f"{name} has hooks, which a program would not call")
    if has_own_forward(module):
        raise Refused(f"{name} was given another forward, which a program would not call")
    if isinstance(module, _BATCH) and (module.training or not module.track_running_stats):
        raise Refused(f"{name} ({type(module).__name__}) normalises over the batch, which couples the samples")


def _node(critic, node):
    """(the program's node, the fx nodes of the values that it reads)"""
    sources = list(node.all_input_nodes)
    if node.op == "call_module":
        module = critic.get_submodule(node.target)
        if len(sources) != 1 or node.kwargs:
            raise Refused(f"{node.target} is called with more than one tensor")
        return _module(node.target, module), sources
    name, function = node.name, in_place.AUGMENTED.get(node.target, node.target)
    if node.op == "call_function" and function in _ADDITIONS:
        if len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args) and not node.kwargs:
            return Join(name, "add"), list(node.args)
    elif node.op == "call_function":
        made = _function(name, function, node.args[1:], node.kwargs)
        if made is not None and len(sources) == 1:
            return made, sources
    elif node.op == "call_method" and node.target in _SHAPES and len(sources) == 1:
        kind = Flatten if node.target == "flatten" and node.args[1:] == (1,) and not node.kwargs else Reshape
        return kind(name, node.target, lambda x: getattr(x, node.target)(*node.args[1:], **node.kwargs)), sources
    elif node.op == "call_method" and node.target in ("mean", "sum") and len(sources) == 1 and _knows(node.kwargs):
        return Linear(
            name, node.target, lambda x: _within_samples(x, node.target, *node.args[1:], **node.kwargs)
        ), sources
    elif node.op == "call_method" and node.target in ("view", "reshape") and _keeps_batch(node):
        return Reshape(name, node.target, _reshape(node.args[2:])), sources[:1]
    raise Refused(f"{name}: no sweeps are known for {getattr(node.target, '__name__', node.target)}")


def _module(name, module):
    kind = type(module)
    for attribute in ("weight", "bias"):
        if any(attribute in place for place in (vars(module), module._buffers, module._modules)):
            raise Refused(f"{name}: its {attribute} is no parameter of its own")
    if kind is nn.Linear:
        return Matrix(name, module)
    if kind in _CONVOLUTIONS and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        how = conv.Geometry(
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            transposed=_CONVOLUTIONS[kind],
            output_padding=module.output_padding,
            groups=module.groups,
        )
        return Layer(name, module, conv.MAPS, how)
    if kind is nn.ReLU:
        return Piecewise(name, "relu", activation.relu)
    if kind is nn.LeakyReLU and isinstance(module.negative_slope, (int, float)) and module.negative_slope > 0:
        return Piecewise(name, "leaky_relu", activation.leaky_relu(module.negative_slope))
    if kind in (nn.Hardtanh, nn.ReLU6):
        return Piecewise(name, "hardtanh", activation.hardtanh(module.min_val, module.max_val))
    if kind in (nn.Flatten, nn.Unflatten):
        is_whole = kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
        return (Flatten if is_whole else Reshape)(name, kind.__name__.lower(), module)
    if kind is nn.Identity or (
        isinstance(module, nn.modules.dropout._DropoutNd) and not (module.training and module.p)
    ):
        return Reshape(name, "identity", lambda x: x)
    if isinstance(module, nn.modules.dropout._DropoutNd):
        raise Refused(f"{name} ({kind.__name__}) draws anew in each of a program's sweeps")
    if kind in _LINEAR or kind in _AVERAGING:
        bends = kind in _AVERAGING and not _is_one(getattr(module, "output_size", None))
        return Linear(name, kind.__name__, module, bends)
    if kind in _BENT or kind in _BATCH:  # in evaluation, where its statistics are numbers
        return Island(name, kind.__name__, module, module, curved=False)
    if kind in _NORMS or (kind in _INSTANCE_NORMS and not module.track_running_stats):
        return Norm(name, module)
    if kind in _CURVED:
        return Island(name, kind.__name__, _apart(module) if getattr(module, "inplace", False) else module, module)
    raise Refused(f"{name}: no sweeps are known for {kind.__name__}")


def _function(name, function, args, kwargs):
    if any(isinstance(value, fx.Node) for value in (*args, *kwargs.values())):
        return None
    if function in (F.relu, torch.relu):
        return Piecewise(name, "relu", activation.relu)
    if function is F.leaky_relu:
        slope = args[0] if args else kwargs.get("negative_slope", 0.01)
        return Piecewise(name, "leaky_relu", activation.leaky_relu(slope)) if slope > 0 else None
    if function is torch.flatten:
        is_whole = args == (1,) and not kwargs
        return (Flatten if is_whole else Reshape)(name, "flatten", lambda x: torch.flatten(x, *args, **kwargs))
    if function in (operator.mul, operator.truediv) and len(args) == 1 and isinstance(args[0], (int, float)):
        return Linear(name, function.__name__, lambda x: function(x, args[0]))
    if function is F.pixel_unshuffle:
        return Linear(name, "pixel_unshuffle", lambda x: function(x, *args, **kwargs))
    if function in _AVERAGES:
        size = kwargs.get("output_size", *args[:1]) if function is F.adaptive_avg_pool2d else None
        return Linear(name, function.__name__, lambda x: function(x, *args, **kwargs), not _is_one(size))
    if function in _ELEMENTWISE:
        call = lambda x: function(x, *args, **kwargs)  # noqa: E731
        over = kwargs.get("inplace") or any(arg is True for arg in args)
        return Island(name, _ELEMENTWISE[function], _apart(call) if over else call)
    return None


def _apart(call):
    """Not over its input, which is a leaf here."""
    return lambda x: call(x.clone())


def _is_one(size):
    """Of an average's result: then PyTorch takes the mean, whose derivative does not ask for x."""
    return size == 1 or (isinstance(size, (tuple, list)) and set(size) == {1})


def _keeps_batch(node):
    """x.view(x.size(0), …), x.view(x.shape[0], …) and x.view(-1, …), of which the sizes behind have to be numbers."""
    first, *rest = node.args[1:]
    is_size = first == -1 or (isinstance(first, fx.Node) and first.target in ("size", operator.getitem))
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
