"""A step as a CUDA graph: recorded once for each kind of call, then replayed with one launch from the host."""

import torch

from ._settings import settings
from .optim._fused_step import FusedStep

PLAIN_STEPS = 2  # before a recording: kernels are compiled, and the optimizer makes its state


def record(function, generators, stream):
    """(replay, result) of ``function()``, of which nothing is executed yet."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=stream):
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
    every step, whether they are numbers or tensors. There is another recording, after two plain steps, for inputs of
    another shape or dtype, when a parameter, its need of a gradient or a state of the optimizer is another, when a
    module changes its mode, hooks or plain attributes, or a group its settings, and under other autocast. An optimizer
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
        self.plain_steps, self.recordings, self.why_not = 0, {}, None
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
            self.key, self.recordings, self.plain_steps = key, {}, 0
        if shapes not in self.recordings:
            if self.plain_steps < PLAIN_STEPS:
                self.plain_steps += 1
                return self._on_the_side(function, inputs)
            try:
                self.recordings[shapes] = _Recording(function, inputs, self)
            except RuntimeError as error:
                self.why_not = str(error).splitlines()[0]
                return function(*inputs)
            self.plain_steps = 0
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
        taken.append(torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind))
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
        self.inputs, self.groups = [torch.empty_like(x) for x in inputs], of.optimizer.param_groups
        given = [group["lr"] for group in self.groups]
        self.rates = [lr if isinstance(lr, torch.Tensor) else inputs[0].new_tensor(lr).float() for lr in given]

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
