"""What is known of a critic from one penalty to the next, for as long as it is the same."""

import weakref

from torch import nn

from .._settings import settings, surroundings
from .closure import Closure
from .program import Refused
from .trace import reads, reads_of_closure, trace, trace_closure
from .transparent import is_unchanged


class Known:
    """What a critic was found to be, as it was then and with what surrounded it.

    reads: see ``trace.reads``; None where its Python has to run.
    general: the ``Way`` for samples of any shape; None where there is none, or not yet.
    ways: {kind of x: how such samples go, where not by the general one, or None where they cannot}
    rests: {what it is for: how often it is still called there before anyone looks at its settings again}
    waits: how often it is called first. One that was another at each call for a while, as where a number fades a block
    in, is looked into only when it has stayed the same.
    """

    settings_of = staticmethod(settings)

    def __init__(self, critic, made_for, before=None):
        self.parts, self.made_for, self.ways = self.parts_of(critic), made_for, {}
        self.rests = {}
        self.surroundings, self.settings = made_for
        self.reads, self.general = [], None
        self.uses, self.changes = 0, 0 if before is None or before.uses > 1 else before.changes + 1
        self.waits = _PATIENCE if self.changes >= _RESTLESS else 0

    def reads_of(self, critic):
        return reads(critic)

    def trace(self, critic, *samples):
        return trace(critic, *samples)

    def is_of(self, now):
        return self.made_for == now and is_unchanged(self.reads)

    def used(self, critic):
        """Itself, or None while it is called."""
        if self.uses == self.waits:
            self.reads = self.reads_of(critic)
            if self.reads is not None:
                self.general = self._traced(critic)
        self.uses += 1
        return self if self.uses > self.waits and self.reads is not None else None

    def is_resting(self, *where):
        left = self.rests.get(where, 0)
        if left:
            self.rests[where] = left - 1
        return left > 0

    def way(self, critic, x):
        """The ``Way`` of samples like x, or None where they cannot go."""
        if kind_of(x) in self.ways:
            return self.ways[kind_of(x)]
        return self.general or self._way_of_its_own(critic, x)

    def refuse(self, critic, x, way):
        """Where samples like x cannot go this way: another for the next time, or a rest."""
        if way is None or way is not self.general or self._way_of_its_own(critic, x) is None:
            self.ways[kind_of(x)], self.rests[kind_of(x), critic.training, self.surroundings] = None, _REST

    def _way_of_its_own(self, critic, x):
        if len(self.ways) >= _MOST_SHAPES:
            return None
        self.ways[kind_of(x)] = way = self._traced(critic, x)
        return way

    def _traced(self, critic, *samples):
        try:
            return self.trace(critic, *samples)
        except Refused:
            return None

    def parts_of(self, critic):
        return list(critic.modules())[1:]  # without itself, by which it is known

    def parameters(self, critic):
        """All that it has now, each once."""
        of_parts = (part._parameters.values() for part in (critic, *self.parts))
        params = (param for each in of_parts for param in each if param is not None)
        return list({id(param): param for param in params}.values())  # a parameter's hash is a function in Python

    def buffers(self):
        """What a run may write over."""
        return [buffer for part in self.parts for buffer in part._buffers.values() if buffer is not None]


class KnownClosure(Known):
    """The same of a ``Closure``."""

    settings_of = staticmethod(Closure.settings)

    def reads_of(self, closure):
        return reads_of_closure(closure)

    def trace(self, closure, *samples):
        return trace_closure(closure, *samples)

    def parts_of(self, closure):
        return [part for module in closure.modules for part in module.modules() if part is not closure.main]

    def parameters(self, closure):
        return super().parameters(closure.main)


_RESTLESS, _PATIENCE = 8, 3
_REST = 8
_MOST_SHAPES = 16  # that a critic is written down for one by one
_known = weakref.WeakKeyDictionary()  # {critic: Known}
_closures = weakref.WeakKeyDictionary()  # {a closure's main module: {its code: KnownClosure}}
_MOST = 16  # closures of one critic that are remembered


def kind_of(x):
    """What a critic's Python may know of its samples."""
    return x.shape, x.dtype


def known_of(critic, x):
    """Of a Module or a ``Closure``; None for one that is called, or that is for samples like x for a while."""
    if isinstance(critic, nn.Module):
        return _found(Known, _known, critic, critic, x)
    if critic is None or critic.main is None:
        return None
    of_main = _closures.setdefault(critic.main, {})
    if len(of_main) > _MOST:
        of_main.clear()
    return _found(KnownClosure, of_main, critic.code, critic, x)


def _found(kind, known_by, key, critic, x):
    known, around = known_by.get(key), surroundings("cpu")
    # Some stay with their calls, and pay for no look at their settings, or for few.
    if known is not None and (known.reads is None or known.is_resting(kind_of(x), critic.training, around)):
        return None
    now = around, kind.settings_of(critic)
    if known is None or not known.is_of(now):
        known_by[key] = known = kind(critic, now, known)
    return known.used(critic)
