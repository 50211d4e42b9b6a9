"""What a module's forward depends on beside its tensors."""

import contextlib

import torch

from ._dispatch import requested, use_backend

PLAIN = frozenset({bool, int, float, str, type(None), tuple})


def settings(module):
    """Equal for as long as nothing of it changes that can be seen: which modules it has, and where, the forward of each
    class, or one put in its place, their hooks and those of their parameters, and their plain attributes, ``training``
    among them. What lies within a list, a dictionary or an object cannot be seen.
    """
    parts, found, seen = [module], [], set()
    for part in parts:  # which grows; Module.modules() takes longer than all of the rest
        if id(part) in seen:  # there twice, or within itself
            continue
        seen.add(id(part))
        own = vars(part)
        children = own["_modules"].values()
        parts += [child for child in children if child is not None]
        found.append(
            (
                id(part),
                id(type(part)),
                id(type(part).forward),
                [id(child) for child in children],
                [value for value in own.values() if type(value) in PLAIN],
                id(own.get("forward")),
                len(own["_forward_hooks"]),
                len(own["_forward_pre_hooks"]),
                len(own["_backward_hooks"]),
                len(own["_backward_pre_hooks"]),
                [
                    (len(param._backward_hooks or ()), len(param._post_accumulate_grad_hooks or ()))
                    for param in own["_parameters"].values()
                    if param is not None
                ],
            )
        )
    return found


def surroundings(kind):
    """What is set around it, on this kind of device: autocast's dtype where it is on, and the backend asked for."""
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind), requested()


@contextlib.contextmanager
def within(kind, then):
    """The ``surroundings`` that there were then, put back for a while."""
    dtype, backend = then
    with torch.autocast(kind, dtype=dtype or None, enabled=bool(dtype)), use_backend(backend):
        yield
