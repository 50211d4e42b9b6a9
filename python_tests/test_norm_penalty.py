import math

import pytest
import torch
from cases import assert_as_good, in_every_dtype, on_every_backend, on_every_batch
from torch.autograd import gradcheck, gradgradcheck

import wgan_kernels as wk
from wgan_kernels import _library, reference

SETTINGS = [
    {},
    {"target": 0.0},
    {"one_sided": True, "reduction": "sum"},
    {"target": 2.5, "reduction": "none"},
]
in_every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


@on_every_backend
@in_every_dtype
@on_every_batch
@in_every_setting
def test_equals_reference(backend, device, dtype, batch, setting, poisoned):
    grad = batch(dtype=dtype, device=device)
    with wk.use_backend(backend):
        penalty = wk.gradient_norm_penalty(grad, **setting)
    eager = reference.gradient_norm_penalty(grad, **setting)
    assert_as_good(penalty, eager, reference.gradient_norm_penalty(grad.double(), **setting))


@on_every_backend
@in_every_dtype
@on_every_batch
@in_every_setting
def test_gradient_equals_reference(backend, device, dtype, batch, setting, poisoned):
    grad = batch(dtype=dtype, device=device)

    def gradient(function, dtype):
        g = grad.detach().to(dtype).requires_grad_()
        return torch.autograd.grad(function(g, **setting).sum(), g)[0]

    with wk.use_backend(backend):
        actual = gradient(wk.gradient_norm_penalty, dtype)
    eager = gradient(reference.gradient_norm_penalty, dtype)
    assert_as_good(actual, eager, gradient(reference.gradient_norm_penalty, torch.float64))


@on_every_backend
@in_every_setting
def test_gradients(backend, device, setting):
    grad = torch.randn(3, 2, 3, dtype=torch.float64, device=device, requires_grad=True)

    def function(g):
        return wk.gradient_norm_penalty(g, **setting)

    with wk.use_backend(backend):
        assert gradcheck(function, grad)
        assert gradgradcheck(function, grad)


@on_every_backend
def test_third_derivative(backend, device):
    grad = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)

    def slope(g):
        return torch.autograd.grad(wk.gradient_norm_penalty(g), g, create_graph=True)[0].square().sum()

    with wk.use_backend(backend):
        assert gradgradcheck(slope, grad)


@on_every_backend
def test_opcheck(backend, device):
    operators = _library.operators(backend)
    for shape in ((3, 5), (2, 3, 4, 4)):
        for requires_grad in (False, True):
            for reduction in (0, 1):
                grad = torch.randn(shape, device=device, requires_grad=requires_grad)
                torch.library.opcheck(operators.norm_penalty_fwd, (grad, 1.0, False, reduction))
                norm = grad.detach().flatten(1).norm(dim=1)
                above = torch.rand(() if reduction else shape[0], device=device, requires_grad=requires_grad)
                torch.library.opcheck(operators.norm_penalty_bwd, (above, grad, norm, 1.0, False, reduction))


@on_every_backend
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_zero_norm_has_zero_gradient(backend, device, one_sided, target):
    grad = torch.zeros(3, 4, device=device)
    grad[1, 0] = 3.0
    grad.requires_grad_()
    with wk.use_backend(backend):
        penalty = wk.gradient_norm_penalty(grad, target=target, one_sided=one_sided, reduction="none")
        (g,) = torch.autograd.grad(penalty.sum(), grad, create_graph=True)
        (gg,) = torch.autograd.grad(g.square().sum(), grad)
    at_zero = 0.0 if one_sided else target**2
    assert penalty.tolist() == [at_zero, (3 - target) ** 2, at_zero]
    assert g[0].tolist() == g[2].tolist() == [0.0] * 4
    assert gg.isfinite().all()


@on_every_backend
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_stay_in_their_sample(backend, device, bad):
    for position in (0, 4, 8):
        grad = torch.randn(3, 9, device=device)
        grad[1, position] = bad
        grad.requires_grad_()
        with wk.use_backend(backend):
            penalty = wk.gradient_norm_penalty(grad, reduction="none")
            (g,) = torch.autograd.grad(penalty.sum(), grad)
        torch.testing.assert_close(penalty, reference.gradient_norm_penalty(grad, reduction="none"), equal_nan=True)
        assert not penalty[1].isfinite() and penalty[0].isfinite() and penalty[2].isfinite()
        assert g[1].isnan().any() and g[0].isfinite().all() and g[2].isfinite().all()


@on_every_backend
def test_does_not_depend_on_the_number_of_threads(backend, device):
    grad = torch.randn(8, 50_001, device=device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with wk.use_backend(backend):
                results.append(wk.gradient_norm_penalty(grad))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
