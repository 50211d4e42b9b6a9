"""What a module's forward depends on beside its tensors."""

import contextlib

import torch

from ._dispatch import requested, use_backend

_PLAIN = frozenset({bool, int, float, str, type(None), tuple})


def settings(module):
    """Equal for as long as nothing of it changes that can be seen: which modules it has, and where, a forward put in
    place of a module's own, their hooks and those of their parameters, and their plain attributes, ``training`` among
    them. What lies within a list, a dictionary or an object cannot be seen.
    """
    return [
        (
            id(part),
            id(type(part)),
            [id(child) for child in part._modules.values()],  # one that is there twice is not found twice below
            [value for value in vars(part).values() if type(value) in _PLAIN],
            id(vars(part).get("forward")),
            len(part._forward_hooks),
            len(part._forward_pre_hooks),
            len(part._backward_hooks),
            len(part._backward_pre_hooks),
            [
                (len(param._backward_hooks or ()), len(param._post_accumulate_grad_hooks or ()))
                for param in part._parameters.values()
                if param is not None
            ],
        )
        for part in module.modules()
    ]


def surroundings(kind):
    """What is set around it, on this kind of device: autocast's dtype where it is on, and the backend asked for."""
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind), requested()


@contextlib.contextmanager
def within(kind, then):
    """The ``surroundings`` that there were then, put back for a while."""
    dtype, backend = then
    with torch.autocast(kind, dtype=dtype or None, enabled=bool(dtype)), use_backend(backend):
        yield
