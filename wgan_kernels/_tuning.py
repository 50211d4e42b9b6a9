"""Ways to run the same network that differ in speed and in last digits alone, and the choice between them."""

import contextlib
import math
import time

import torch
from torch.overrides import TorchFunctionMode

from . import _layout
from .rules import conv
from .rules._autocast import under_autocast


class Convolutions(TorchFunctionMode):
    """Within it 2-d convolutions are run as a CPU likes them: those to few channels as matrix products
    (rules/_columns.py), and with ``channels_last``, or a kernel that is, all others on channels-last samples.

    The network's own weights keep their memory. ``torch.compile`` sees through it.
    """

    def __init__(self, channels_last):
        super().__init__()
        self.channels_last = channels_last

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS or len(args) < 2 or type(args[0]) is not torch.Tensor:
            return func(*args, **kwargs)
        x, w, *settings = args
        if x.dim() != 4 or not x.is_cpu:
            return func(*args, **kwargs)
        if self.channels_last or _layout.memory_format(w) is torch.channels_last:  # as PyTorch's kernel would
            x = _layout.channels_last(x)
        named = dict(kwargs)
        b, settings = (settings[0], settings[1:]) if settings else (named.pop("bias", None), ())
        how, is_same = conv.geometry(2, func is torch.conv_transpose2d, settings, named)
        if is_same:
            return func(x, *args[1:], **kwargs)
        y = under_autocast(conv.MAPS.forward if torch.compiler.is_compiling() else conv.conv, x, w, b, how)
        return func(x, *args[1:], **kwargs) if y is None else y


_CONVOLUTIONS = (torch.conv2d, torch.conv_transpose2d)


def fastest(ways):
    """Which of the functions ``{name: function}`` to take: the first, unless another is evidently faster.

    Each is called once to warm up and then twice in turn; what counts is its better time. One that raises RuntimeError
    is not taken, as a network that calls ``view`` on samples in channels-last memory: unless the first does.
    """
    able = {}
    for name, way in ways.items():
        try:
            way()
        except RuntimeError:
            if not able:
                raise
        else:
            able[name] = way
    seconds = dict.fromkeys(able, math.inf)
    for name, way in (*able.items(), *able.items()):
        start = time.perf_counter()
        way()
        seconds[name] = min(seconds[name], time.perf_counter() - start)
    first, best = next(iter(able)), min(seconds, key=seconds.get)
    return best if seconds[best] < _EVIDENTLY * seconds[first] else first


_EVIDENTLY = 0.95  # two such times of one function differ by up to 5 % on a machine that is busy with something else


@contextlib.contextmanager
def undisturbed(*modules):
    """What is run within leaves no trace in the modules' buffers, nor in the default random numbers."""
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    devices = {buffer.device for buffer, _ in buffers if buffer.is_cuda}
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
