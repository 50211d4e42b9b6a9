"""A critic written down for samples of one shape: its Python may ask for it, and reckon with it, as it likes."""

import torch
from torch import nn

from .graph import Tracer, run
from .in_place import Proxy


class ShapedTracer(Tracer):
    """Does all on tensors without data, too, which tell the shape of each value."""

    def __init__(self, samples):
        super().__init__()
        self.samples, self.twins = samples, {}

    def proxy(self, node):
        """Of the samples alone is the shape told: what else there is may be another one at the next call."""
        is_of_samples = node.name == "samples" or any("samples" in source.meta for source in node.all_input_nodes)
        if not is_of_samples:
            return Proxy(node, self)
        node.meta["samples"] = True
        return ShapedProxy(node, self)

    def create_proxy(self, kind, target, args, kwargs, *more, **named):
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if kind.startswith("call"):
            proxy.node.meta["value"] = self._value(proxy.node)
        return proxy

    def placeholder(self, name, tensor):
        return self._with(super().placeholder(name, tensor), tensor)

    def tensor(self, name, tensor):
        return self._with(super().tensor(name, tensor), tensor)

    def _with(self, proxy, tensor):
        proxy.node.meta["value"] = torch.empty_like(tensor, device="meta")
        return proxy

    def _value(self, node):
        """None where it cannot be told."""
        if node.op == "call_module" and node.target not in self.twins:
            self.twins[node.target] = twin(self.root.get_submodule(node.target))
        found = {source: value_of(source) for source in node.all_input_nodes}
        try:
            with torch.no_grad():
                run([node], found, self.twins)
        except Exception:  # whatever it does with tensors without data, or would do with others
            return None
        return found[node]


def value_of(node):
    """What a node comes to, without data."""
    return node.meta.get("value")


def twin(module):
    """A copy of a module whose tensors have no data."""
    copy = object.__new__(type(module))
    own = vars(copy)
    own.update(vars(module))
    own["_modules"] = {name: child if child is None else twin(child) for name, child in module._modules.items()}
    for kind in ("_parameters", "_buffers"):
        own[kind] = {name: tensor if tensor is None else _without_data(tensor) for name, tensor in own[kind].items()}
    return copy


def _without_data(tensor):
    like = torch.empty_like(tensor, device="meta")
    return nn.Parameter(like, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else like


class ShapedProxy(Proxy):
    """A stand-in that tells its shape."""

    def _value(self, kind=torch.Tensor):
        value = value_of(self.node)
        if not isinstance(value, kind):
            raise TypeError(f"it asks for the shape of {self.node.name}, which is not known")
        return value

    @property
    def shape(self):
        return self._value().shape

    @property
    def ndim(self):
        return self._value().ndim

    @property
    def dtype(self):
        return self._value().dtype

    @property
    def device(self):
        self._value()
        return self.tracer.samples.device

    def size(self, *dim):
        return self._value().size(*dim)

    def dim(self):
        return self._value().dim()

    def numel(self):
        return self._value().numel()

    def __len__(self):
        return len(self._value((torch.Tensor, tuple, list)))

    def __iter__(self):
        return (self[i] for i in range(len(self)))
