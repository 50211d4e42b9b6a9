"""Ctrl-C between two iterations instead of in the middle of one."""

import signal
from contextlib import contextmanager


class Stop:
    """asked: whether the loop is to stop after the iteration it is in."""

    asked = False


@contextmanager
def stop_on_signal():
    """Ctrl-C and SIGTERM set the ``asked`` of the Stop that this yields; a second one stops at once."""
    stop = Stop()

    def ask(number, frame):
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        print("stopping after this iteration …", flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
