"""What the optimizers' tests share: settings, parameters of every shape, and how two optimizers are compared."""

import pytest
import torch
from cases import BATCHES, assert_as_good

import wgan_kernels as wk
from wgan_kernels import reference

OPTIMIZERS = {
    "rmsprop": (wk.optim.RMSprop, reference.optim.RMSprop, torch.optim.RMSprop),
    "adam": (wk.optim.Adam, reference.optim.Adam, torch.optim.Adam),
}
on_both = pytest.mark.parametrize("name", OPTIMIZERS)


def awkward_params(dtype, device):
    """Leaves of every shape and stride; a gradient each, some in another order in memory than their parameter."""
    params = [batch(dtype=dtype, device=device) for name, batch in BATCHES.items() if name != "expanded"]
    params += [torch.randn((), dtype=dtype, device=device), torch.randn(5, 4, dtype=dtype, device=device)]
    for param in params:
        param.requires_grad_()
        param.grad = torch.randn_like(param)
    params[-1].grad = torch.randn(4, 5, dtype=dtype, device=device).t()
    return params


def twins(params, dtype=None):
    """Leaves of equal values, strides and gradients, in memory of their own; in another dtype if asked for."""

    def twin(tensor):
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype or tensor.dtype, device=tensor.device)
        return made.copy_(tensor.detach())

    made = [twin(param).requires_grad_() for param in params]
    for new, param in zip(made, params, strict=True):
        if param.grad is not None:
            new.grad = twin(param.grad)
    return made


def clamped(params, clip):
    """The loop that ``clip=`` replaces."""
    with torch.no_grad():
        for param in params:
            param.clamp_(-clip, clip)


def steps(optimizer, params, count, seed=0, after=lambda: None):
    """That many steps with gradients drawn anew, the same for the same seed and shapes."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for param in params:
            param.grad.copy_(torch.randn(param.shape, generator=generator, dtype=torch.float64))
        optimizer.step()
        after()


def state_tensors(optimizer, params):
    """The states of all parameters, by name, without the counts of steps."""
    return [value for param in params for name, value in sorted(optimizer.state[param].items()) if name != "step"]


def assert_step_as_good(backend, ours, spec, params, settings):
    """From equal parameters, gradients and states, one step of ours is as near to the exact one as its dtype promises.

    States are drawn: squares around 1, other averages within ±0.3. The first step, which makes them, is overwritten.
    """
    weights = [param.detach().clone() for param in params]
    groups = [params, twins(params), twins(params, torch.float64)]
    optimizers = [kind(group, **settings) for kind, group in zip((ours, spec, spec), groups, strict=True)]
    drawn = None
    for optimizer, group in zip(optimizers, groups, strict=True):
        with wk.use_backend(backend):
            optimizer.step()
            if drawn is None:
                drawn = {
                    (i, name): torch.rand_like(state) + 0.5 if "sq" in name else (torch.rand_like(state) - 0.5) * 0.6
                    for i, param in enumerate(group)
                    for name, state in optimizer.state[param].items()
                }
            for i, param in enumerate(group):
                param.data.copy_(weights[i])
                for name, state in optimizer.state[param].items():
                    if name != "step":
                        state.copy_(drawn[i, name])
            optimizer.step()
    results = [list(group) + state_tensors(opt, group) for opt, group in zip(optimizers, groups, strict=True)]
    for actual, eager, exact in zip(*results, strict=True):
        assert_as_good(actual, eager, exact)
    assert [optimizer.state[group[0]]["step"].item() for optimizer, group in zip(optimizers, groups, strict=True)] == [
        2
    ] * 3
