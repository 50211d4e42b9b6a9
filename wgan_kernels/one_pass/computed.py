"""Weights that a layer computes of others at each call: those of ``torch.nn.utils.parametrize``, spectral norm among
them, and of the hooks that ``torch.nn.utils.spectral_norm`` and ``weight_norm`` were before.
"""

import contextlib
import functools
import weakref

from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_HOOKS = (SpectralNorm, WeightNorm)


def computed_by(module):
    """The names of the weights that it computes."""
    if not module._forward_pre_hooks and "parametrizations" not in module._modules:
        return ()
    parametrized = module.parametrizations if parametrize.is_parametrized(module) else ()
    return (*(hook.name for hook in module._forward_pre_hooks.values() if type(hook) in _HOOKS), *parametrized)


def is_steady(module, name):
    """Whether the next call computes the same, and follows nothing: spectral norm's vectors go on in training."""
    if parametrize.is_parametrized(module, name):
        return all(_keeps(part) for part in module.parametrizations[name])
    hooks = [hook for hook in module._forward_pre_hooks.values() if type(hook) in _HOOKS and hook.name == name]
    return all(type(hook) is WeightNorm or not module.training for hook in hooks)


def _keeps(parametrization):
    kind = type(parametrization)
    if kind is parametrizations._SpectralNorm:
        return not parametrization.training
    return kind in (parametrizations._WeightNorm, parametrizations._Orthogonal)


def has_other_hooks(module):
    """Whether it has hooks that do anything else."""
    others = (module._forward_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(others) or not all(type(hook) in _HOOKS for hook in module._forward_pre_hooks.values())


def makers(critic):
    """Identities of the modules that compute weights."""
    lists = (part for part in critic.modules() if isinstance(part, parametrize.ParametrizationList))
    return {id(part) for made in lists for part in made.modules()}


class Weight:
    """A tensor of a module's own: as it is, or as a call of its layer computes it."""

    def __init__(self, module, name):
        self.of, self.name = weakref.ref(module), name  # of the critic itself, by which this is kept

    def compute(self):
        """As a call of the layer does: spectral norm's vectors go on by an iteration in training."""
        module = self.of()
        for hook in module._forward_pre_hooks.values():
            if type(hook) in _HOOKS and hook.name == self.name:
                hook(module, ())
        return getattr(module, self.name)


@contextlib.contextmanager
def held(computed):
    """[(Weight, what it was)]: for a while their layers have these, in the order of their calls, and compute none."""
    values, undo = {}, contextlib.ExitStack()
    for weight, value in computed:
        values.setdefault((weight.of(), weight.name), []).append(value)
    with undo:
        for (module, name), given in values.items():
            following, hooks = functools.partial(next, iter(given)), module._forward_pre_hooks
            for key, hook in hooks.items():
                if type(hook) in _HOOKS and hook.name == name:
                    undo.callback(hooks.__setitem__, key, hook)
                    hooks[key] = lambda module, _, name=name, value=following: setattr(module, name, value())
            if parametrize.is_parametrized(module, name):
                by = vars(module.parametrizations[name])
                undo.callback(by.__delitem__, "forward")
                by["forward"] = following
        yield
