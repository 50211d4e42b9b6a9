"""What a critic's own Python does beside giving a result, seen while its forward is written down: a program would not
do it again.
"""

import collections
import contextlib
import copy
import random
import sys

import torch

from .program import Refused

_CONTAINERS = (list, dict, set, collections.deque)


def own_containers(attributes):
    """{name: a container of their own}, so that what a stand-in puts into one is not put into the critic's."""
    return {name: copy.copy(value) for name, value in attributes.items() if type(value) in _CONTAINERS}


@contextlib.contextmanager
def watched(stand_ins):
    """
    Raises:
        Refused: where random numbers were drawn, which are put back, or an attribute of a stand-in is another now.
    """
    chance, attributes = _chance(), [_within(stand_in) for stand_in in stand_ins]
    try:
        yield
    finally:
        drawn = [put_back for (state, put_back), (now, _) in zip(chance, _chance(), strict=True) if state != now]
        for put_back in drawn:
            put_back()
    if drawn:
        raise Refused("its forward draws random numbers of its own, which decide what it does")
    for stand_in, before in zip(stand_ins, attributes, strict=True):
        after = _within(stand_in)
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if changed:
            raise Refused(f"its forward changes {changed[0]} of a {type(stand_in).__name__}")


def contexts():
    """What a block of a forward may have turned on or off, and how many of autocast's there are."""
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), depth


def _chance():
    """[(a generator's state, what puts it back)]"""
    mine, of_torch = random.getstate(), torch.get_rng_state()
    found = [(mine, lambda: random.setstate(mine)), (of_torch.tolist(), lambda: torch.set_rng_state(of_torch))]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        theirs = numpy.random.get_state()
        found.append(((theirs[1].tolist(), *theirs[2:]), lambda: numpy.random.set_state(theirs)))
    return found


def _within(stand_in):
    """{attribute: what tells that it is another one}"""
    return {name: (id(value), _of(value)) for name, value in vars(stand_in).items()}


def _of(value):
    if type(value) not in _CONTAINERS:
        return None
    return [*map(id, value), *(map(id, value.values()) if type(value) is dict else ())]
