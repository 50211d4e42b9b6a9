"""Which node of a program one of torch's layers or functions becomes."""

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils import parametrize

from ..rules import activation, conv, pool, smooth
from .batch_norm import BatchNorm
from .dropout import Dropout
from .flatten import Flatten, Matrix
from .island import Island
from .layer import Layer
from .nodes import Linear, Piecewise, Reshape
from .norm import Norm
from .pool import MaxPool
from .prelu import PReLU
from .program import Refused
from .smooth import Smooth

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
_MAX_POOLS = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
_ADAPTIVE_MAX_POOLS = {nn.AdaptiveMaxPool1d: 1, nn.AdaptiveMaxPool2d: 2, nn.AdaptiveMaxPool3d: 3}
# Smooth, each with its curve, where there is one:
_SMOOTH = {
    nn.Tanh: lambda module: smooth.tanh,
    nn.Sigmoid: lambda module: smooth.sigmoid,
    nn.Softplus: lambda module: smooth.softplus(module.beta, module.threshold),
    nn.SiLU: lambda module: smooth.silu,
    nn.GELU: lambda module: smooth.gelu if module.approximate == "none" else None,
    nn.ELU: lambda module: smooth.elu(module.alpha),
    nn.SELU: lambda module: smooth.elu(*_SELU),
    nn.CELU: lambda module: smooth.elu(module.alpha, 1.0, 1 / module.alpha),
    nn.Hardswish: lambda module: smooth.hardswish,
    nn.Mish: lambda module: None,
    nn.LogSigmoid: lambda module: None,
    nn.Softsign: lambda module: None,
}
_SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946  # α and scale
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = {nn.Conv1d: False, nn.Conv2d: False, nn.Conv3d: False}
_CONVOLUTIONS |= {nn.ConvTranspose1d: True, nn.ConvTranspose2d: True, nn.ConvTranspose3d: True}
_DROPOUTS = {
    nn.Dropout: (F.dropout, None),
    nn.Dropout1d: (F.dropout1d, 1),
    nn.Dropout2d: (F.dropout2d, 2),
    nn.Dropout3d: (F.dropout3d, 3),
}
# Functions, by what torch tells of their calls: F.max_pool2d calls torch.max_pool2d.
_MAX_POOL_FUNCTIONS = {
    function: (dims, pool.max_pool)
    for dims in (1, 2, 3)
    for function in (getattr(torch, f"max_pool{dims}d"), getattr(F, f"max_pool{dims}d"))
}
_MAX_POOL_FUNCTIONS |= {getattr(F, f"adaptive_max_pool{dims}d"): (dims, pool.adaptive_max_pool) for dims in (1, 2, 3)}
_AVERAGES = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool2d)
# {function: (dims, whether it is transposed)}
LAYER_FUNCTIONS = {getattr(torch, f"conv{dims}d"): (dims, False) for dims in (1, 2, 3)}
LAYER_FUNCTIONS |= {getattr(torch, f"conv_transpose{dims}d"): (dims, True) for dims in (1, 2, 3)}
LAYER_FUNCTIONS |= {F.linear: None}
_DROPOUT_FUNCTIONS = dict(_DROPOUTS.values())
FUNCTIONS = (
    *(F.relu, torch.relu, F.leaky_relu, torch.flatten, F.pixel_unshuffle),
    *_AVERAGES,
    *_DROPOUT_FUNCTIONS,
    *LAYER_FUNCTIONS,
    *smooth.CURVES,
    *_MAX_POOL_FUNCTIONS,
)


def module_node(name, module, computed=()):
    """computed: see ``Layer``.

    Raises:
        Refused: where no sweeps are known for it.
    """
    kind = parametrize.type_before_parametrizations(module) if computed else type(module)
    has_maps = kind is nn.Linear or kind in _CONVOLUTIONS
    for attribute in ("weight", "bias"):
        elsewhere = any(attribute in place for place in (vars(module), module._buffers, module._modules))
        if not has_maps if attribute in computed else elsewhere:
            raise Refused(f"{name}: its {attribute} is no parameter of its own")
    if kind is nn.Linear:
        return Matrix(name, type(module).__name__, module, computed)
    if kind in _CONVOLUTIONS and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        how = conv.Geometry(
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            transposed=_CONVOLUTIONS[kind],
            output_padding=module.output_padding,
            groups=module.groups,
        )
        return Layer(name, type(module).__name__, module, conv.MAPS, how, computed)
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
    if kind in _DROPOUTS:
        function, dims = _DROPOUTS[kind]
        return Dropout(name, kind.__name__, lambda ones: function(ones, module.p), dims)
    if kind in _LINEAR or kind in _AVERAGING:
        bends = kind in _AVERAGING and not _is_one(getattr(module, "output_size", None))
        return Linear(name, kind.__name__, module, bends)
    if kind in _MAX_POOLS and not module.return_indices:
        sizes = module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        return MaxPool(name, kind.__name__, _MAX_POOLS[kind], pool.max_pool(_MAX_POOLS[kind], *sizes))
    if kind in _ADAPTIVE_MAX_POOLS and not module.return_indices:
        dims = _ADAPTIVE_MAX_POOLS[kind]
        return MaxPool(name, kind.__name__, dims, pool.adaptive_max_pool(dims, module.output_size))
    if kind is nn.PReLU:
        return PReLU(name, module)
    couples = kind in _BATCH_NORMS and (module.training or module.running_mean is None)
    if couples and kind is not nn.SyncBatchNorm:
        return BatchNorm(name, module)
    if kind in _BATCH_NORMS and not couples:  # in evaluation, where its statistics are numbers
        return Island(name, kind.__name__, module, module, curved=False)
    if kind in _NORMS or (kind in _INSTANCE_NORMS and not module.track_running_stats):
        return Norm(name, module)
    if kind in _SMOOTH:
        call = (lambda x: module(x.clone())) if getattr(module, "inplace", False) else module
        return _smooth(name, kind.__name__, _SMOOTH[kind](module), call)
    raise Refused(f"{name}: no sweeps are known for {kind.__name__}")


def layer_node(name, function, settings, named, places):
    """Of a function that is given its weight. settings, named: what it is called with behind the bias; places: of
    weight and bias, see ``Layer``. None where no sweeps are known for it.
    """
    if function is F.linear:
        return Matrix(name, "linear", None, places)
    dims, transposed = LAYER_FUNCTIONS[function]
    how, is_same = conv.geometry(dims, transposed, settings, named)
    return None if is_same else Layer(name, function.__name__, None, conv.MAPS, how, places)


def function_node(name, function, args, kwargs):
    """args, kwargs: what it is called with beside the value that it reads. None where no sweeps are known for it."""
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
    if function in _MAX_POOL_FUNCTIONS:
        dims, maps = _MAX_POOL_FUNCTIONS[function]
        if kwargs.get("return_indices"):
            return None
        kwargs = {key: value for key, value in kwargs.items() if key != "return_indices"}
        return MaxPool(name, function.__name__, dims, maps(dims, *args, **kwargs))
    if function in _DROPOUT_FUNCTIONS:
        return _dropout(name, function, *args, **kwargs)
    if function in smooth.CURVES:
        curve = smooth.CURVES[function](*args, **kwargs)
        return _smooth(name, function.__name__, curve, lambda x: function(x, *args, **kwargs))
    return None


def _dropout(name, function, p=0.5, training=True, inplace=False):
    if not training or not p:
        return Reshape(name, "identity", lambda x: x)
    return Dropout(name, function.__name__, lambda ones: function(ones, p), _DROPOUT_FUNCTIONS[function])


def _smooth(name, what, curve, call):
    return Island(name, what, call) if curve is None else Smooth(name, what, curve)


def _is_one(size):
    """Of an average's result: then PyTorch takes the mean, whose derivative does not ask for x."""
    return size == 1 or (isinstance(size, (tuple, list)) and set(size) == {1})
