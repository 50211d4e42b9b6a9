"""What a critic does with its samples, written down: its forward is run once, by a copy whose layers only say that they
were called. ``torch.fx``'s own way calls through every module of the process meanwhile, other threads' too.
"""

import functools
import itertools

import torch
from torch import fx

from .in_place import AUGMENTED, Proxy
from .program import Refused
from .watched import contexts, own_containers, watched


def graph_of(critic, tracer, given=0):
    """``fx.Graph``, whose nodes name modules as ``critic.get_submodule`` does, and their tensors likewise.

    tracer: a ``Tracer``, for samples of any shape or of one alone.
    given: how many tensors it is called with beside them: placeholders behind that of the samples.

    Raises:
        Refused: its forward cannot be run without samples, or does what cannot be written down.
    """

    def stand_in(made):
        copy = _stand_in(critic, "", tracer, made)
        others = [tracer.placeholder(f"given_{i}", None) for i in range(given)]
        return lambda samples: copy(samples, *others)

    return _written(critic, tracer, stand_in)


def graph_of_closure(closure, within, tracer):
    """The same of a ``Closure``, whose modules are the children of ``within``. Its tensors are placeholders behind that
    of the samples, in their order.
    """
    names = {id(module): name for name, module in within.named_children()}

    def stand_in(made):
        given = itertools.count()

        def of(value):
            if isinstance(value, torch.Tensor):
                return tracer.placeholder(f"given_{next(given)}", value)
            return _stand_in(value, names[id(value)], tracer, made)

        return closure.rebuilt(of)

    return _written(within, tracer, stand_in)


def _written(root, tracer, stand_in):
    """stand_in: (made) → what to call with a stand-in for the samples; it notes copies of modules in made."""
    tracer.root, tracer.graph, made = root, fx.Graph(tracer_cls=type(tracer)), {}
    try:
        samples = tracer.placeholder("samples", tracer.samples)
        call = stand_in(made)
        with torch.enable_grad(), watched(list(made.values())):
            tracer.contexts = contexts()
            result = call(samples)
        tracer.contexts = None
        tracer.create_node("output", "output", (tracer.create_arg(result),), {})
    except Refused:
        raise
    except Exception as error:  # whatever its forward does with a stand-in for a tensor
        raise Refused(
            f"its forward cannot be traced: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    return tracer.graph


def is_layer(module):
    """Whether it is one of torch's own, whose forward is not looked into."""
    return _TRACER.is_leaf_module(module, "")


_TRACER = fx.Tracer()  # which takes longer to make than to ask


class Tracer(fx.Tracer):
    """For samples of any shape."""

    samples = contexts = None

    def proxy(self, node):
        return Proxy(node, self)

    def create_proxy(self, kind, *args, **named):
        if self.contexts is not None and contexts() != self.contexts:
            raise Refused("its forward turns gradients or autocast on or off")
        return super().create_proxy(kind, *args, **named)

    def placeholder(self, name, tensor):
        """A stand-in for a tensor that a critic is given, of which nothing is known."""
        return self.create_proxy("placeholder", name, (), {})

    def tensor(self, name, tensor):
        """One for a parameter or a buffer."""
        return self.create_proxy("get_attr", name, (), {})

    def create_arg(self, value):
        if isinstance(value, torch.Tensor):  # fx would make it an attribute of the critic
            raise TypeError("it uses a tensor that is no layer's")
        return super().create_arg(value)


def _stand_in(module, name, tracer, made):
    """A copy of a module with all of its attributes but its tensors, which are stand-ins, and the modules within, each
    of which is such a copy, too, and for one of torch's layers but its forward.

    made: {module: its copy}, of those that have one.
    """
    if module is None or module in made:
        return made.get(module)
    made[module] = copy = object.__new__(type(module))
    own = vars(copy)
    own.update(vars(module), **own_containers(vars(module)), _compiled_call_impl=None)
    children, below = module._modules.items(), f"{name}." if name else ""
    own.update(dict.fromkeys(_CONVERSIONS, _refused))
    own["_modules"] = {key: _stand_in(child, below + key, tracer, made) for key, child in children}
    for kind in ("_parameters", "_buffers"):
        own[kind] = {
            key: tensor if tensor is None else tracer.tensor(below + key, tensor) for key, tensor in own[kind].items()
        }
    if name and is_layer(module):
        own.update(forward=functools.partial(_called, tracer, name), _forward_pre_hooks={})  # which compute weights
    return copy


# Of a module these would change the critic's own parameters.
_CONVERSIONS = ("to", "float", "double", "half", "bfloat16", "type", "requires_grad_", "train", "eval")


def _refused(*args, **kwargs):
    raise TypeError("it converts a module")


def _called(tracer, name, *args, **kwargs):
    return tracer.create_proxy("call_module", name, args, kwargs)


def run(nodes, found, modules):
    """Does what nodes say. found: {node: what it has come to}, with all that they read; modules: {target: Module}"""
    for node in nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), found.__getitem__)
        if node.op == "call_module":
            found[node] = modules[node.target](*args, **kwargs)
        elif node.op == "call_method":  # samples may lie in another memory than they would in the critic's own calls
            found[node] = getattr(args[0], "reshape" if node.target == "view" else node.target)(*args[1:], **kwargs)
        elif node.op == "call_function":
            found[node] = AUGMENTED.get(node.target, node.target)(*args, **kwargs)
