"""What a module's forward depends on beside its tensors."""

_PLAIN = frozenset({bool, int, float, str, type(None), tuple})
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def settings(module):
    """Equal for as long as nothing of it changes that can be seen: which modules it has, their hooks and those of their
    parameters, and their plain attributes, ``training`` among them. What lies within a list, a dictionary or an object
    cannot be seen.
    """
    return [
        (
            id(part),
            [value for value in vars(part).values() if type(value) in _PLAIN],
            [len(getattr(part, hooks)) for hooks in _HOOKS],
            [
                (len(param._backward_hooks or ()), len(param._post_accumulate_grad_hooks or ()))
                for param in part._parameters.values()
                if param is not None
            ],
        )
        for part in module.modules()
    ]
