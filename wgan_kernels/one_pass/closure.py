"""A critic that is a function of somebody's own, as for its labels: ``lambda x: critic(x, labels)``."""

import dis
import functools
import itertools
from types import CellType, FunctionType, SimpleNamespace

import torch
from torch import nn

from .._settings import PLAIN, settings
from .graph import is_layer
from .transparent import is_plain


def closure_of(function):
    """The ``Closure`` that a function, or ``functools.partial`` of a module, is; None where it has other things from
    outside than modules, tensors without a gradient, tuples of them, and plain values, or objects of which it reads
    such alone, as in ``lambda x: self.critic(x, labels)``.
    """
    try:
        found = _found_in(function)
    except ValueError:  # a variable that is not set yet
        return None
    kinds = {place: _kind(value) for place, value in (found or {}).items()}
    if None in kinds.values() or nn.Module not in kinds.values():
        return None
    return Closure(function, found, kinds)


class Closure:
    """places: {where it has something from outside: of which kind}. modules, tensors: [what is there].
    main: the first of the modules that is none of torch's layers, or None.
    """

    def __init__(self, function, found, kinds):
        self.function, self.found, self.places = function, found, kinds
        self.modules = [value for place, value in found.items() if kinds[place] is nn.Module]
        self.tensors = [value for place, value in found.items() if kinds[place] is torch.Tensor]
        self.main = next((module for module in self.modules if not is_layer(module)), None)
        self.code = getattr(function, "__code__", None)
        self.versions = [tensor._version for tensor in self.tensors]

    @property
    def training(self):
        return self.main.training

    def settings(self):
        """Equal for as long as it is the same critic, see ``_settings.settings``; its tensors may be others."""
        plain = [(place, self.found[place]) for place, kind in self.places.items() if kind in PLAIN]
        return self.places, list(map(id, self.modules)), plain, list(map(settings, self.modules))

    def is_unchanged(self):
        """Whether the function still has what it had."""
        now = _found_in(self.function)
        same = now.keys() == self.found.keys() and all(now[place] is value for place, value in self.found.items())
        return same and self.versions == [tensor._version for tensor in self.tensors]

    def names(self):
        """Those by which it reads what it has, and those of objects of which it reads attributes alone."""
        places = self.places
        of_objects, of_tuples = ({place[0] for at, place in places if at == kind} for kind in ("attribute", "item"))
        return {name for where, name in places if where in ("cell", "global")} | of_objects | of_tuples, of_objects

    def rebuilt(self, stand_in):
        """The function, with ``stand_in(value)`` for each module and tensor."""
        replaced = {
            place: self.found[place] if kind in PLAIN else stand_in(self.found[place])
            for place, kind in self.places.items()
        }
        of = lambda where: {name: value for (at, name), value in replaced.items() if at == where}  # noqa: E731
        if isinstance(self.function, functools.partial):
            return functools.partial(*of("callee").values(), **of("keyword"))
        function, cells = self.function, of("cell")
        for (name, attribute), value in of("attribute").items():
            setattr(cells.setdefault(name, SimpleNamespace()), attribute, value)
        for (name, _), value in of("item").items():
            cells[name] = (*cells.get(name, ()), value)
        cells = tuple(CellType(cells[name]) for name in function.__code__.co_freevars)
        space, defaults = {**function.__globals__, **of("global")}, tuple(of("default").values())
        return FunctionType(function.__code__, space, function.__name__, defaults, cells)


def _found_in(function):
    """{(where, name or number): what is there}, or None."""
    if type(function) is functools.partial and not function.args:
        keywords = {("keyword", name): value for name, value in function.keywords.items()}
        return {("callee", ""): function.func, **keywords}
    if type(function) is not FunctionType or function.__kwdefaults__:
        return None
    code, space, found = function.__code__, function.__globals__, {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        found |= _of_cell(code, name, cell.cell_contents)
    found |= {("default", i): value for i, value in enumerate(function.__defaults__ or ())}
    for name in _globals_of(code):
        if isinstance(space.get(name), (nn.Module, torch.Tensor)):
            found["global", name] = space[name]
    return found


def _of_cell(code, name, value):
    if type(value) is tuple and value and {_kind(item) for item in value} == {torch.Tensor}:
        return {("item", (name, i)): item for i, item in enumerate(value)}
    attributes = _attributes_of(code, name)
    if not attributes or _kind(value) not in (None, nn.Module):
        return {("cell", name): value}
    if type(value).__getattribute__ is not object.__getattribute__:
        return {("cell", name): value}
    own = {**vars(value).get("_modules", {}), **vars(value)} if hasattr(value, "__dict__") else {}
    if any(attribute not in own or hasattr(type(value), attribute) for attribute in attributes):
        return {("cell", name): value}
    return {("attribute", (name, attribute)): own[attribute] for attribute in attributes}


@functools.lru_cache(maxsize=256)
def _attributes_of(code, name):
    """Those that are read of a variable of an outer function; none if there is another use of it."""
    attributes = {}
    for step, then in itertools.pairwise(dis.get_instructions(code)):
        if step.argval != name or not step.opname.endswith("DEREF"):
            continue
        if step.opname != "LOAD_DEREF" or then.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return ()
        attributes[then.argval] = None
    return tuple(attributes)


@functools.lru_cache(maxsize=256)
def _globals_of(code):
    return tuple({step.argval: None for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"})


def _kind(value):
    """nn.Module, torch.Tensor, a plain type, or None."""
    if isinstance(value, nn.Module):
        return nn.Module
    if type(value) is torch.Tensor:
        is_dense = value.is_cpu and value.layout is torch.strided and not value.requires_grad
        return torch.Tensor if is_dense else None
    return type(value) if is_plain(value) else None
