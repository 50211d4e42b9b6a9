"""Whether a critic's Python does nothing but say which layers its samples go through.

Then it need not run: what it would do again is known from what it has done, for as long as the critic's ``settings``
are the same. Nothing is run to find that out. A forward of somebody's own may

- call the critic's modules and methods, read their tensors and plain attributes, go through containers of modules;
- call the functions that sweeps are known for, and others that do nothing but return something new;
- have local variables, conditions and loops.

It may not assign to anything else, nor reach what is neither of these: lists and objects of a module or among its
defaults, random numbers, contexts, exceptions that are caught. What it reads beyond the critic is told, to see
whether it is as it was.
"""

import builtins
import dis
import inspect
from types import BuiltinFunctionType, FunctionType, ModuleType

import torch
from torch import nn

from .._settings import PLAIN
from . import pure
from .computed import makers

_OF_TENSORS = pure.METHODS | {"device", "dim", "dtype", "float", "ndim", "numel", "shape", "size", "to"}
_OF_CONTAINERS = {"forward", "items", "keys", "values"}
_BUILTINS = (abs, enumerate, float, int, isinstance, len, max, min, range, reversed, super, tuple, zip)
_BETWEEN = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL"})  # a name and its attributes
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_WRITES = ("STORE_", "DELETE_", "IMPORT_", "SETUP_")
_UNUSUAL = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def read(critic, functions):
    """[(a class or a global namespace as a dict, name, value there, its code)]: all that a critic's forward reads
    beyond the critic itself. None where it may do anything else.

    functions: those that it may call.
    """
    reading = _reading([critic], functions)
    return reading.found if reading is not None else None


def read_closure(closure, functions):
    """The same of a ``Closure``."""
    reading = _reading(closure.modules, functions)
    if reading is None:
        return None
    is_partial = not isinstance(closure.function, FunctionType)  # of one of the modules
    return reading.found if is_partial or reading.is_harmless(closure.function, *closure.names()) else None


def _reading(critics, functions):
    """A ``_Reading`` of modules whose forwards do nothing else, or None."""
    computing = {maker for critic in critics for maker in makers(critic)}  # run as they are, at each call
    modules = [module for critic in critics for module in critic.modules() if id(module) not in computing]
    kinds = {kind: None for module in modules for kind in type(module).__mro__ if _is_own(kind)}
    if not all(map(_is_called_as_usual, kinds)):
        return None
    plain, other = set(), set()
    for module in modules:
        plain.update(module._modules, module._parameters, module._buffers)
        if _is_own(type(module)):
            for name, value in vars(module).items():
                (plain if is_plain(value) else other).add(name)
    reading = _Reading(_OF_TENSORS | _OF_CONTAINERS | (plain - other), list(map(vars, kinds)), functions)
    return reading if reading.of_classes("forward") else None


def is_unchanged(found):
    """found: by ``read``."""
    return all(space.get(name) is value and _code_of(value) is code for space, name, value, code in found)


def _is_own(kind):
    return issubclass(kind, nn.Module) and not kind.__module__.startswith("torch.nn.")


def _is_called_as_usual(kind):
    same = ("__call__", "__getattr__", "__setattr__", "_call_impl", "_wrapped_call_impl")
    usual = all(getattr(kind, name) is getattr(nn.Module, name) for name in same)
    return usual and kind.__getattribute__ is object.__getattribute__


def _code_of(value):
    return getattr(value, "__code__", None)


def is_plain(value):
    return type(value) in PLAIN and (type(value) is not tuple or all(map(is_plain, value)))


class _Reading:
    """Goes through the functions that a forward reaches, each once.

    names: attributes that may be read of anything. classes: the critic's own ones as dicts. found: see ``read``
    """

    def __init__(self, names, classes, functions):
        self.names, self.classes, self.functions = names, classes, functions
        self.found, self.seen = [], set()

    def of_classes(self, name):
        """Whether whatever the critic's classes have of this name may be used."""
        return all(self._takes(kind, name) for kind in self.classes if name in kind)

    def _takes(self, space, name):
        value = space[name]
        if (id(space), name) in self.seen:
            return True
        self.seen.add((id(space), name))
        self.found.append((space, name, value, _code_of(value)))
        return is_plain(value) or (type(value) is FunctionType and self.is_harmless(value))

    def is_harmless(self, function, given=None, objects=()):
        """given: the names by which it reads what is known anyhow, as its defaults are then; None: there are none.
        objects: those among them of which it is the attributes that are known, and nothing else is read.
        """
        code, space = function.__code__, function.__globals__
        if code.co_flags & _UNUSUAL or getattr(code, "co_exceptiontable", b""):
            return False
        if set(code.co_freevars) - {"__class__", *(given or ())}:
            return False
        if any(inspect.iscode(constant) for constant in code.co_consts):
            return False
        if given is None and (function.__kwdefaults__ or not is_plain(function.__defaults__ or ())):
            return False
        module, is_known = None, False  # whose attribute comes next, or what is known of it
        for step in dis.get_instructions(code):
            if step.opname in _BETWEEN:
                continue
            name = step.argval
            if is_known:
                is_known = False
            elif step.opname == "LOAD_DEREF" and name in objects:
                is_known = True
            elif module is not None:
                found = getattr(module, name, None) if step.opname in _ATTRIBUTES else None
                module = found if isinstance(found, ModuleType) else None
                if module is None and not self._is_known(found):
                    return False
            elif step.opname == "LOAD_GLOBAL" and name in (given or ()):
                continue
            elif step.opname == "LOAD_GLOBAL":
                module = space.get(name) if isinstance(space.get(name), ModuleType) else None
                if module is None and not self._is_of_globals(space, name):
                    return False
            elif step.opname in _ATTRIBUTES or step.opname.startswith("LOAD_SUPER"):
                if not self._is_readable(name):
                    return False
            elif step.opname.startswith(_WRITES) and "_FAST" not in step.opname:
                return False
        return module is None

    def _is_of_globals(self, space, name):
        if name not in space:
            return self._is_known(getattr(builtins, name, None))
        return self._is_known(space[name]) or self._takes(space, name)

    def _is_readable(self, name):
        has = any(name in kind for kind in self.classes)
        return self.of_classes(name) if has else name in self.names

    def _is_known(self, found):
        if isinstance(found, type):
            return found in _BUILTINS or _is_own(found)  # super(Critic, self)
        if isinstance(found, torch.dtype) or (isinstance(found, BuiltinFunctionType) and found.__module__ == "math"):
            return True
        return any(found is function for function in (*_BUILTINS, *self.functions))
