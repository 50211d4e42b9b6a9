"""Ctrl-C and SIGTERM between two iterations instead of in the middle of one."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

Item = TypeVar("Item")


class Stopped(Exception):
    """Work that can be done again after a resume was broken off, since a stop was asked for."""


class Stop:
    """asked: whether the loop is to stop after the iteration it is in.

    at_once: nothing is left to save, so that a signal need not wait.
    """

    asked = False
    at_once = False

    def check(self) -> None:
        """Raises Stopped once a stop is asked for."""
        if self.asked:
            raise Stopped

    def unless_asked(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, one by one; raises Stopped instead of the next one once a stop is asked for."""
        for item in items:
            self.check()
            yield item


@contextmanager
def stop_on_signal():
    """Ctrl-C and SIGTERM set the ``asked`` of the Stop that this yields; a second one raises KeyboardInterrupt."""
    stop = Stop()

    def ask(number, frame):
        if stop.asked or stop.at_once:
            raise KeyboardInterrupt
        stop.asked = True
        # Not print: the signal may have come in the middle of one, which cannot be entered twice.
        with suppress(OSError):
            os.write(1, "stopping after this iteration …\n".encode())

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
