import itertools

import pytest
import torch
from cases import in_every_dtype, on_every_backend
from optimizers import OPTIMIZERS, assert_step_as_good, awkward_params, clamped, steps, twins

import wgan_kernels as wk
from wgan_kernels import _library

OURS, SPEC, TORCH = OPTIMIZERS["adam"]
SETTINGS = [
    {"lr": 1e-2, "clip": clip, "betas": betas, **other}
    for clip, betas, other in itertools.product(
        (None, 0.2), ((0.0, 0.9), (0.9, 0.999)), ({}, {"weight_decay": 0.1, "maximize": True, "eps": 1e-3})
    )
]
FORMS = [{}, {"betas": (0.5, 0.999)}, {"betas": (0.9, 0.99), "weight_decay": 0.1, "maximize": True}]


@on_every_backend
@in_every_dtype
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_reference(backend, device, dtype, settings):
    assert_step_as_good(backend, OURS, SPEC, awkward_params(dtype, device), settings)


@on_every_backend
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_300_steps_beside_torch(backend, device, form):
    params = [torch.randn(n, dtype=torch.float64, device=device, requires_grad=True) for n in (3, 70)]
    for param in params:
        param.grad = torch.zeros_like(param)
    others = twins(params)
    form = {"betas": (0.0, 0.9)} | form
    with wk.use_backend(backend):
        steps(OURS(params, lr=5e-2, clip=0.5, **form), params, 300)
    steps(TORCH(others, lr=5e-2, **form), others, 300, after=lambda: clamped(others, 0.5))
    for param, other in zip(params, others, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-10, atol=1e-10)
    assert 0 < sum((param.abs() == 0.5).sum() for param in params) < 73


@on_every_backend
def test_every_parameter_has_its_own_step(backend, device):
    """The corrections of a parameter that joined late are those of its own count."""
    params = [torch.ones(3, dtype=torch.float64, device=device, requires_grad=True) for _ in range(3)]
    others = twins(params)
    ours, spec = OURS(params, lr=0.1, betas=(0.5, 0.9)), SPEC(others, lr=0.1, betas=(0.5, 0.9))
    for late in range(3):
        for group in (params, others):
            group[late].grad = torch.full_like(group[late], 0.5)
        with wk.use_backend(backend):
            ours.step()
        spec.step()
    assert [ours.state[param]["step"].item() for param in params] == [3, 2, 1]
    for param, other in zip(params, others, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-13, atol=0)


@on_every_backend
def test_opcheck(backend, device):
    lists = [[torch.rand(3, 4, device=device), torch.rand(5, device=device)] for _ in range(4)]
    counts = [torch.zeros((), device=device) for _ in range(2)]
    settings = (None, None, None, 1e-2, 0.0, 0.9, 1e-8, 0.0, 0.1, False)
    torch.library.opcheck(_library.operators(backend).adam_, (*lists, counts, *settings))
