"""What the two optimizers share: a step that hands each device's parameters, gradients and states to one leaf."""

import math

import torch

from .. import _checks, _dispatch, _library, _native
from ..ops.clip import clip_

_REFUSED = {
    "differentiable": "a fused step is not recorded by autograd",
    "amsgrad": "there is no fused form of it",
    "decoupled_weight_decay": "there is no fused form of it",
}


class FusedStep:
    """Mixin before an optimizer of the reference whose state is like the parameters, but for a count of steps each.

    A subclass has ``_OP``, the stem of its leaf ``<op>_``; ``_states(group)``, the names of the leaf's lists of states,
    None for one that stays empty; ``_settings(group)``, the leaf's numbers between lr and clip; and ``_reference``, the
    same step in plain PyTorch. The state is torch's, except that the count of steps lives on the parameter's device.
    """

    _step_supports_amp_scaling = True  # a GradScaler then leaves scale and found_inf to the step

    def add_param_group(self, param_group):
        if isinstance(param_group, dict):
            _check_clip("clip of a parameter group", param_group.get("clip"))
        super().add_param_group(param_group)
        try:
            _refuse(self.param_groups[-1])
            for param in self.param_groups[-1]["params"]:
                _checks.floating("params", param)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _complete(self):
        _check_clip("clip", self.defaults["clip"])
        super()._complete()

    def load_state_dict(self, state_dict):
        for group in state_dict["param_groups"]:
            _refuse(group)
        super().load_state_dict(state_dict)

    def __setstate__(self, state):
        super().__setstate__(state)
        for param, values in self.state.items():
            if "step" in values:
                values["step"] = torch.as_tensor(values["step"], dtype=torch.float32, device=param.device)

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient, and the clip of every parameter.

        Args:
            closure: evaluates the loss again and returns it, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a gradient is sparse.
            TypeError, ValueError: a group's clip was set to something else than a number ≥ 0 or None.
            Nothing is written when it raises.
        """
        if not torch.compiler.is_compiling():
            for group in self.param_groups:
                _check_clip("clip of a parameter group", group["clip"])
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(group, *self._gather(group)) for group in self.param_groups]
        for group, by_device, idle in work:
            for device, lists in by_device.items():
                self._update(group, device, lists)
            if idle and group["clip"] is not None:
                clip_(idle, group["clip"])
        return loss

    def _gather(self, group):
        """({device: [params, grads, a list per state …, steps]}, the parameters that have no gradient)."""
        by_device, idle = {}, []
        for param in group["params"]:
            if param.grad is None:
                idle.append(param)
            else:
                by_device.setdefault(param.device, []).append(param)
        names = self._states(group)
        return {device: self._lists(params, names) for device, params in by_device.items()}, idle

    def _lists(self, params, names):
        grads = [param.grad for param in params]
        if any(grad.is_sparse for grad in grads):
            raise RuntimeError("params: a gradient is sparse, expected dense ones; torch.optim.SparseAdam takes them")
        states = [self.state[param] or self._begin(param, names) for param in params]
        columns = [[] if name is None else [state[name] for state in states] for name in names]
        return [params, grads, *columns, [state["step"] for state in states]]

    def _begin(self, param, names):
        state = self.state[param]
        state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
        for name in filter(None, names):
            state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state

    def _update(self, group, device, lists):
        backend, _ = _dispatch.choose(self._OP, device)
        lr_tensor, lr = _split_lr(group["lr"], device)
        scale, found_inf = (_on(device, getattr(self, name, None)) for name in ("grad_scale", "found_inf"))
        clip = math.inf if group["clip"] is None else group["clip"]
        if backend == "reference":
            self._reference_step(group, lists, scale, found_inf)
            return
        settings = (lr_tensor, scale, found_inf, lr, *self._settings(group), clip, group["maximize"])
        if not self._step_lists(backend, lists, settings):
            leaf = getattr(_library.leaves(backend), f"{self._OP}_")
            alike, copied = _alike(lists)
            leaf(*alike, *settings)
            for tensor, copy in copied:
                tensor.copy_(copy)
        if not torch.compiler.is_compiling():
            torch.autograd.graph.increment_version(lists[0])

    def _step_lists(self, backend, lists, settings):
        """The common case, by the compiled module's own function. False: nothing was done."""
        if backend == "triton" or _dispatch.is_intercepted():
            return False
        module = _native.cpu if backend == "cpp" else _native.cuda
        return getattr(module, f"{self._OP}_list")(tuple(lists[:-1]), lists[-1], *settings)

    def _reference_step(self, group, lists, scale, found_inf):
        if found_inf is not None and found_inf.item():
            return
        if scale is not None:
            lists[1] = [grad / scale for grad in lists[1]]
        self._reference(group, lists)
        if group["clip"] is not None:
            clip_(lists[0], group["clip"])


def _alike(lists):
    """The lists with every tensor in one run of memory, in its parameter's order; (what is written, its copy) pairs."""
    alike = [list(tensors) for tensors in lists]
    copied = []
    for i, param in enumerate(lists[0]):
        if all(not tensors or _is_plain(tensors[i], param.dtype) for tensors in lists[:-1]):
            continue
        # What has gaps or overlaps becomes contiguous; torch keeps the order of the rest.
        example = torch.empty_like(param, memory_format=torch.preserve_format)
        for position, tensors in enumerate(lists[:-1]):
            if tensors and (tensors[i].stride() != example.stride() or tensors[i].dtype != example.dtype):
                alike[position][i] = torch.empty_like(example).copy_(tensors[i])
                if position != 1:
                    copied.append((tensors[i], alike[position][i]))
    return alike, copied


def _is_plain(tensor, dtype):
    return tensor.is_contiguous() and tensor.dtype is dtype


def _split_lr(lr, device):
    """(a tensor on the device, or None; a number)."""
    if not isinstance(lr, torch.Tensor):
        return None, lr
    if lr.device.type == "cpu" and not torch.compiler.is_compiling():
        return None, lr.item()
    return _on(device, lr.reshape(())), 0.0


def _on(device, tensor):
    return tensor if tensor is None else tensor.to(device)


def _check_clip(name, clip):
    if clip is not None and _checks.number(name, clip) < 0:
        raise ValueError(f"{name} is {clip}: expected ≥ 0, or None for no clip")


def _refuse(settings):
    for name, why in _REFUSED.items():
        if settings.get(name):
            raise ValueError(f"{name}: expected False: {why}; torch.optim has it, and wk.clip_ clips after its step")
