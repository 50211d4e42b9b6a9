"""What a critic does with its samples, written down: its forward is run once, by a copy whose layers only say that they
were called. ``torch.fx``'s own way calls through every module of the process meanwhile, other threads' too.
"""

import functools

import torch
from torch import fx

from .in_place import Proxy
from .program import Refused


def graph_of(critic):
    """``fx.Graph``, whose nodes name modules as ``critic.get_submodule`` does.

    Raises:
        Refused: its forward cannot be run without samples, or does what cannot be written down.
    """
    tracer = _Tracer()
    tracer.root, tracer.graph = critic, fx.Graph(tracer_cls=_Tracer)
    samples = tracer.create_proxy("placeholder", "samples", (), {})
    try:
        result = _stand_in(critic, "", tracer, {})(samples)
        tracer.create_node("output", "output", (tracer.create_arg(result),), {})
    except Exception as error:  # whatever its forward does with a stand-in for a tensor
        raise Refused(f"its forward cannot be traced: {str(error).splitlines()[0]}") from error
    return tracer.graph


class _Tracer(fx.Tracer):
    def proxy(self, node):
        return Proxy(node, self)

    def create_arg(self, value):
        if isinstance(value, torch.Tensor):  # fx would make it an attribute of the critic
            raise TypeError("it uses a tensor that is no layer's")
        return super().create_arg(value)


def _stand_in(module, name, tracer, made):
    """A copy of a module with all of its attributes but the modules within, each of which is such a copy, too, and for
    one of torch's layers but its forward.

    made: {module: its copy}, of those that have one.
    """
    if module is None or module in made:
        return made.get(module)
    made[module] = copy = object.__new__(type(module))
    own = vars(copy)
    own.update(vars(module), _compiled_call_impl=None)
    children, below = module._modules.items(), f"{name}." if name else ""
    own["_modules"] = {key: _stand_in(child, below + key, tracer, made) for key, child in children}
    if name and tracer.is_leaf_module(module, name):
        own["forward"] = functools.partial(_called, tracer, name)
    return copy


def _called(tracer, name, *args, **kwargs):
    return tracer.create_proxy("call_module", name, args, kwargs)
