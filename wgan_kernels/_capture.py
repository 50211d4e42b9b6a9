"""A step as a CUDA graph: recorded once for each kind of call, then replayed with one launch from the host."""

import contextlib

import torch

from ._settings import settings, surroundings
from .optim._fused_step import FusedStep


def record(function, generators, stream):
    """(replay, result) of ``function()``, of which nothing is executed yet. Where it raises, all is as before."""
    here, pool = torch.cuda.current_stream(stream.device), torch.cuda.graph_pool_handle()
    torch.clear_autocast_cache()  # what was cast outside would not be cast anew by a replay
    try:
        with torch.cuda.stream(here):
            return _captured(function, generators, stream, pool)
    except RuntimeError:
        # torch's context has left its pool of memory open, and the generators as they are within a capture, which the
        # next one that ends well puts right.
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        _captured(lambda: torch.zeros((), device=stream.device), generators, stream, torch.cuda.graph_pool_handle())
        raise
    finally:
        torch.clear_autocast_cache()  # nobody else may read what lies in the graph's memory


def _captured(function, generators, stream, pool):
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads, of a data loader that pins memory for one, may do as they like.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = function()
    return graph.replay, result


def can_record(optimizer):
    """Whether a replay can make this optimizer's step: it counts on the device, and calls nobody."""
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    return isinstance(optimizer, FusedStep) or all(group.get("capturable", False) for group in optimizer.param_groups)


class Captured:
    """``gradients(*inputs) → {name: 0-d tensor}`` and the optimizer's step, replayed where nothing has changed that
    their recording took for granted.

    The inputs are copied into buffers of the recording, and the results out of it. Learning rates are read anew in
    every step, whether they are numbers or tensors. There is another recording, after a plain step, for inputs of
    another shape or dtype, when a parameter, its need of a gradient or a state of the optimizer is another, when a
    module changes its mode, hooks or plain attributes, or a group its settings, and under other autocast or another
    backend. The first step makes the optimizer's state, so that the third is recorded. An optimizer
    with hooks, or one of torch's that is not capturable, makes its step outside. What cannot be recorded runs as it is:
    ``why_not``.

    Not run on a GPU yet: the tests replace ``record``.

    Args:
        gradients: sets the gradients of the optimizer's parameters. Whatever else it writes has to live on.
        modules: whose parameters, buffers and modes it reads.
        optimizer: of some of these parameters.
        generators: other than the device's default, from which it draws.
    """

    def __init__(self, gradients, modules, optimizer, generators=()):
        self.gradients, self.modules, self.optimizer, self.generators = gradients, modules, optimizer, generators
        self.recordings, self.why_not = {}, None
        self.seen = set()  # shapes of which a plain step has compiled the kernels
        self.key = self.stream = None

    def __call__(self, *inputs):
        with_step = can_record(self.optimizer)
        result = self._run(inputs, with_step)
        if not with_step:
            self.optimizer.step()
        return result

    def _run(self, inputs, with_step):
        def function(*inputs):
            result = self.gradients(*inputs)
            if with_step:
                self.optimizer.step()
            return result

        if self.why_not is not None or torch.cuda.is_current_stream_capturing():
            return function(*inputs)
        shapes = tuple((x.shape, x.dtype, x.device) for x in inputs)
        key = with_step, *self._key(inputs[0].device.type)
        if key != self.key:  # what was recorded may read memory that is gone
            self.key, self.recordings, self.seen = key, {}, set()
        if shapes not in self.recordings:
            if shapes not in self.seen:
                self.seen.add(shapes)
                return self._on_the_side(function, inputs)
            try:
                self.recordings[shapes] = _Recording(function, inputs, self)
            except RuntimeError as error:
                self.why_not = str(error).splitlines()[0]
                return function(*inputs)
        return self.recordings[shapes].replay(inputs)

    def said(self):
        """Lines on what is replayed, or why nothing is."""
        lines = [f"inputs {[list(shape) for shape, *_ in shapes]}: a CUDA graph" for shapes in self.recordings]
        return lines if self.why_not is None else [*lines, f"no CUDA graph: {self.why_not}"]

    def _on_the_side(self, function, inputs):
        """A plain step, on the stream that is going to be recorded."""
        if not inputs[0].is_cuda:
            return function(*inputs)
        here = torch.cuda.current_stream(inputs[0].device)
        self.stream = self.stream or torch.cuda.Stream(inputs[0].device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            result = function(*inputs)
        here.wait_stream(self.stream)
        for value in result.values():
            value.record_stream(here)
        return result

    def _key(self, kind):
        """All that a recording takes for granted beside the shapes of its inputs."""
        tensors = [t for module in self.modules for t in (*module.parameters(), *module.buffers())]
        taken = [settings(module) for module in self.modules]
        taken.append(surroundings(kind))
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                tensors.append(param)
                tensors += [t for t in self.optimizer.state.get(param, {}).values() if isinstance(t, torch.Tensor)]
            for name, value in group.items():
                if isinstance(value, torch.Tensor):
                    tensors.append(value)
                elif name not in ("params", "lr"):
                    taken.append((name, value))
        return tuple(taken), tuple((t.data_ptr(), t.requires_grad) for t in tensors)


class _Recording:
    """One graph, its buffers, and the gradients that lie in its memory."""

    def __init__(self, function, inputs, of):
        self.inputs, self.groups = [x.clone() for x in inputs], of.optimizer.param_groups
        given = [group["lr"] for group in self.groups]
        self.rates = [_on(inputs[0].device, lr) for lr in given]

        def stacked():
            result = function(*self.inputs)
            self.names = tuple(result)
            return torch.stack(list(result.values()))

        try:
            for group, rate in zip(self.groups, self.rates, strict=True):
                group["lr"] = rate
            self.run, self.result = record(stacked, of.generators, of.stream)
        finally:
            for group, lr in zip(self.groups, given, strict=True):
                group["lr"] = lr
        params = (param for group in self.groups for param in group["params"])
        self.gradients = [(param, param.grad) for param in params if param.grad is not None]

    def replay(self, inputs):
        for buffer, x in zip(self.inputs, inputs, strict=True):
            buffer.copy_(x)
        for group, rate in zip(self.groups, self.rates, strict=True):
            if group["lr"] is not rate:
                rate.fill_(group["lr"])
        self.run()
        for param, grad in self.gradients:
            param.grad = grad
        return dict(zip(self.names, self.result.clone().unbind(), strict=True))


def _on(device, rate):
    """The learning rate where a graph can read it anew: itself if it is there."""
    if isinstance(rate, torch.Tensor) and rate.device == device:
        return rate
    return torch.tensor(float(rate), device=device)
