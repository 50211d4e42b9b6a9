"""What is known of a critic from one penalty to the next, for as long as it is the same."""

import weakref

import torch
from torch import nn

from .._settings import settings, surroundings
from .closure import Closure
from .program import Refused
from .trace import reads, reads_of_closure, trace, trace_closure
from .transparent import is_unchanged


class Known:
    """What a critic was found to be, as it was then and with what surrounded it.

    program: None where there is none, or not yet. reads: see ``trace.reads``; None where its Python has to run.
    outside: what is run before, an ``Outside`` or None.
    refused: {shape of x: why it cannot be run, or None where it has been}
    waits: how often it is called first. One that was another at each call for a while, as where a number fades a block
    in, is looked into only when it has stayed the same.
    """

    settings_of = staticmethod(settings)

    def __init__(self, critic, made_for, before=None):
        self.parts, self.made_for, self.refused = self.parts_of(critic), made_for, {}
        self.surroundings, self.settings = made_for
        self.reads, self.program, self.outside = [], None, None
        self.uses, self.changes = 0, 0 if before is None or before.uses > 1 else before.changes + 1
        self.waits = _PATIENCE if self.changes >= _RESTLESS else 0

    def is_of(self, now):
        return self.made_for == now and is_unchanged(self.reads)

    def used(self, critic):
        """Itself, or None while it is not run as a program."""
        if self.uses == self.waits:
            self.look_into(critic)
        self.uses += 1
        return None if self.program is None else self

    def parts_of(self, critic):
        return list(critic.modules())[1:]  # without itself, by which it is known

    def look_into(self, critic):
        self.reads = reads(critic)
        if self.reads is not None:
            self.program, self.outside = _traced(trace, critic)

    def parameters(self):
        """Of the critic's parts, as they have them now, each once. Those of its own no layer reads."""
        of_parts = (param for part in self.parts for param in part._parameters.values() if param is not None)
        return list({id(param): param for param in of_parts}.values())  # a parameter's hash is a function in Python

    def results(self, x, tensors):
        """What the outside comes to, with its graph."""
        if self.outside is None:
            return []
        with torch.enable_grad():
            return self.outside.run(x, tensors)

    def buffers(self):
        """What a run may write over."""
        return [buffer for part in self.parts for buffer in part._buffers.values() if buffer is not None]


class KnownClosure(Known):
    """The same of a ``Closure``."""

    settings_of = staticmethod(Closure.settings)

    def parts_of(self, closure):
        return [part for module in closure.modules for part in module.modules() if part is not closure.main]

    def look_into(self, closure):
        self.reads = reads_of_closure(closure)
        if self.reads is not None:
            self.program, self.outside = _traced(trace_closure, closure)


_RESTLESS, _PATIENCE = 8, 3
_known = weakref.WeakKeyDictionary()  # {critic: Known}
_closures = weakref.WeakKeyDictionary()  # {a closure's main module: {its code: KnownClosure}}
_MOST = 16  # closures of one critic that are remembered


def known_of(critic):
    """Of a Module or a ``Closure``; None for one that is not run as a program."""
    if isinstance(critic, nn.Module):
        return _found(Known, _known, critic, critic)
    if critic is None or critic.main is None:
        return None
    of_main = _closures.setdefault(critic.main, {})
    if len(of_main) > _MOST:
        of_main.clear()
    return _found(KnownClosure, of_main, critic.code, critic)


def _found(kind, known_by, key, critic):
    known = known_by.get(key)
    if known is not None and known.reads is None:  # it stays with its calls, and pays for no look at its settings
        return None
    now = surroundings("cpu"), kind.settings_of(critic)
    if known is None or not known.is_of(now):
        known_by[key] = known = kind(critic, now, known)
    return known.used(critic)


def _traced(how, critic):
    try:
        return how(critic)
    except Refused:
        return None, None
