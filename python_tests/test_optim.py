"""What both optimizers promise beside their formulas: they stand in for torch's."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from cases import in_every_dtype, on_every_backend
from optimizers import OPTIMIZERS, awkward_params, clamped, on_both, state_tensors, steps, twins
from torch import nn

import wgan_kernels as wk

# What torch needs to be told to have our defaults.
DEFAULTS = {"rmsprop": {}, "adam": {"betas": (0.0, 0.9)}}
EVERYTHING = {
    "rmsprop": {"lr": 1e-2, "centered": True, "momentum": 0.5},
    "adam": {"lr": 1e-2, "betas": (0.5, 0.9), "weight_decay": 0.1},
}


def pair_of_params(device="cpu", dtype=torch.float64):
    """Two equal lists of leaves with gradients of zeros."""
    params = [torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for shape in ((3,), (4, 5), ())]
    for param in params:
        param.grad = torch.zeros_like(param)
    return params, twins(params)


def assert_same(params, others, **tolerance):
    for param, other in zip(params, others, strict=True):
        torch.testing.assert_close(param, other, **({"rtol": 1e-12, "atol": 1e-12} | tolerance))


@on_both
@on_every_backend
def test_many_tensors_and_large_ones(name, backend, device, three_threads):
    """Threads begin in the middle of a tensor, and programs at its unaligned ends."""
    ours, spec, _ = OPTIMIZERS[name]
    params = [torch.randn(n, device=device, requires_grad=True) for n in (1, 40_000, 3, 70_001, 0, 5, *[2] * 150)]
    params += [torch.randn(9001, device=device)[1:].requires_grad_()]
    for param in params:
        param.grad = torch.randn_like(param)
    others = twins(params)
    a, b = ours(params, lr=0.1, clip=0.5), spec(others, lr=0.1, clip=0.5)
    for _ in range(2):
        with wk.use_backend(backend):
            a.step()
        b.step()
    assert_same(params, others, rtol=1e-5, atol=1e-6)
    assert_same(state_tensors(a, params), state_tensors(b, others), rtol=1e-5, atol=1e-6)


@on_both
@on_every_backend
@in_every_dtype
def test_special_values_are_torchs(name, backend, device, dtype):
    """In float64: in float16 torch's eps is 0, and its step for a gradient of 0 NaN."""
    ours, spec, _ = OPTIMIZERS[name]
    bad = [math.nan, math.inf, -math.inf, 0.0, 1.0]
    pairs = list(itertools.product(bad, bad))
    weights, grads = (torch.tensor(column, dtype=dtype, device=device) for column in zip(*pairs, strict=True))
    params = [weights.repeat(9).requires_grad_()]
    params[0].grad = grads.repeat(9)
    others = twins(params, torch.float64)
    with wk.use_backend(backend):
        ours(params, lr=0.5, clip=0.75).step()
    spec(others, lr=0.5, clip=0.75).step()
    torch.testing.assert_close(params[0], others[0].to(dtype), equal_nan=True)


@on_both
@on_every_backend
def test_mixed_dtypes(name, backend, device):
    ours, spec, _ = OPTIMIZERS[name]
    dtypes = (torch.float64, torch.bfloat16, torch.float32, torch.float16)
    params = [param for dtype in dtypes for param in awkward_params(dtype, device)]
    others = twins(params, torch.float64)
    with wk.use_backend(backend):
        ours(params, lr=0.1, clip=0.5).step()
    spec(others, lr=0.1, clip=0.5).step()
    for param, other in zip(params, others, strict=True):
        torch.testing.assert_close(param, other.to(param.dtype))


@on_both
@on_every_backend
def test_states_interchange_with_torch(name, backend, device):
    """Begun by either, saved, gone on with by the other: as if torch had done it all."""
    ours, _, torchs = OPTIMIZERS[name]
    settings = EVERYTHING[name]
    for first, second in ((ours, torchs), (torchs, ours), (ours, ours)):
        params, others = pair_of_params(device)
        begun = first(params, **settings)
        with wk.use_backend(backend):
            steps(begun, params, 5)
        going_on = second(params, **settings)
        going_on.load_state_dict(copy.deepcopy(begun.state_dict()))
        with wk.use_backend(backend):
            steps(going_on, params, 5, seed=1)
        right = torchs(others, **settings)
        steps(right, others, 5)
        steps(right, others, 5, seed=1)
        assert_same(params, others)
        assert_same(state_tensors(going_on, params), state_tensors(right, others))
        assert {float(going_on.state[param]["step"]) for param in params} == {10.0}


@on_both
def test_a_state_of_torchs_keeps_each_groups_clip(name):
    ours, _, torchs = OPTIMIZERS[name]
    a, b = (nn.Parameter(torch.full((2,), 5.0)) for _ in range(2))
    groups = [{"params": [a], "clip": 0.5}, {"params": [b]}]
    optimizer = ours(groups, lr=0.0, clip=1.0)
    optimizer.load_state_dict(torchs([{"params": [a]}, {"params": [b]}], lr=0.0).state_dict())
    assert [group["clip"] for group in optimizer.param_groups] == [0.5, 1.0]
    other = ours([{"params": [a]}, {"params": [b]}])
    other.load_state_dict(optimizer.state_dict())
    assert [group["clip"] for group in other.param_groups] == [0.5, 1.0]


@on_both
def test_survives_copying_and_pickling(name):
    ours, *_ = OPTIMIZERS[name]
    net = nn.Linear(3, 2).double()
    for param in net.parameters():
        param.grad = torch.ones_like(param)
    optimizer = ours(net.parameters(), clip=0.25, **EVERYTHING[name])
    optimizer.step()
    for made in (copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))):
        twin_net, twin = made((net, optimizer))
        for param, other in zip(net.parameters(), twin_net.parameters(), strict=True):
            other.grad = torch.ones_like(param)
        twin.step()
        assert twin.param_groups[0]["clip"] == 0.25
        assert float(twin.state[next(twin_net.parameters())]["step"]) == 2


@on_both
@on_every_backend
def test_groups_and_schedulers(name, backend, device):
    ours, _, torchs = OPTIMIZERS[name]
    params, others = pair_of_params(device)

    def made(kind, tensors, **clips):
        optimizer = kind(
            [{"params": tensors[:1], **clips}, {"params": tensors[1:2], "lr": 0.5}], lr=0.1, **DEFAULTS[name]
        )
        optimizer.add_param_group({"params": tensors[2:], "weight_decay": 0.1})
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    optimizer, scheduler = made(ours, params, clip=0.25)
    other, other_scheduler = made(torchs, others)

    def after():
        clamped(others[:1], 0.25)
        other_scheduler.step()

    with wk.use_backend(backend):
        steps(optimizer, params, 6, after=scheduler.step)
    steps(other, others, 6, after=after)
    assert optimizer.param_groups[1]["lr"] == 0.5 * 0.5**3
    assert_same(params, others)


@on_both
@on_every_backend
def test_a_tensor_as_learning_rate(name, backend, device):
    ours, _, torchs = OPTIMIZERS[name]
    params, others = pair_of_params(device)
    lr = torch.tensor(0.1, dtype=torch.float64, device=device)
    optimizer, other = ours(params, lr=lr, capturable=True), torchs(others, lr=0.1, **DEFAULTS[name])
    with wk.use_backend(backend):
        steps(optimizer, params, 3)
        lr.fill_(0.01)
        steps(optimizer, params, 3, seed=1)
    steps(other, others, 3)
    other.param_groups[0]["lr"] = 0.01
    steps(other, others, 3, seed=1)
    assert_same(params, others)


@on_both
@on_every_backend
def test_gradient_scaler(name, backend, device):
    """Unscales in the step, and skips it, counts of steps included, where a gradient overflowed."""
    ours, _, torchs = OPTIMIZERS[name]
    params, others = pair_of_params(device, torch.float32)
    results = []
    for kind, tensors, using in ((ours, params, backend), (torchs, others, "reference")):
        scaler = torch.amp.GradScaler(device, init_scale=8.0, growth_interval=2)
        optimizer = kind(tensors, lr=0.1, **DEFAULTS[name])
        for k in range(5):
            optimizer.zero_grad()
            scaler.scale(sum((tensor * (k + 1)).square().sum() for tensor in tensors)).backward()
            if k == 2:
                tensors[1].grad[0, 0] = math.inf
            with wk.use_backend(using):
                scaler.step(optimizer)
            scaler.update()
        results.append((scaler.get_scale(), [float(optimizer.state[tensor]["step"]) for tensor in tensors]))
        assert not hasattr(optimizer, "grad_scale")
    assert results[0] == results[1] == (16.0, [4.0] * 3)
    assert_same(params, others, rtol=1e-5, atol=1e-6)


@on_both
def test_gradient_scaler_after_unscaling(name):
    """As with gradient clipping: unscale_ first, then the step divides no more."""
    ours, _, torchs = OPTIMIZERS[name]
    params, others = pair_of_params(dtype=torch.float32)
    for kind, tensors in ((ours, params), (torchs, others)):
        scaler, optimizer = (
            torch.amp.GradScaler("cpu", init_scale=1024.0),
            kind(tensors, lr=0.1, eps=1.0, **DEFAULTS[name]),
        )
        scaler.scale(sum(tensor.square().sum() for tensor in tensors)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(tensors, 1.0)
        scaler.step(optimizer)
    assert_same(params, others, rtol=1e-6, atol=1e-6)


@on_both
@on_every_backend
def test_parameters_without_gradients_are_clipped_all_the_same(name, backend, device):
    ours, *_ = OPTIMIZERS[name]
    idle, busy = (torch.full((2,), 5.0, device=device, requires_grad=True) for _ in range(2))
    busy.grad = torch.ones_like(busy)
    optimizer = ours([idle, busy], lr=0.1, clip=0.5)
    with wk.use_backend(backend):
        optimizer.step()
    assert idle.tolist() == busy.tolist() == [0.5, 0.5]
    assert set(optimizer.state) == {busy}
    with wk.use_backend(backend):
        ours([idle], clip=0.25).step()
        ours([idle]).step()
    assert idle.tolist() == [0.25, 0.25]


@on_both
def test_closure_and_hooks(name):
    ours, *_ = OPTIMIZERS[name]
    param = nn.Parameter(torch.ones(2))
    optimizer = ours([param], lr=0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure():
        optimizer.zero_grad()
        loss = param.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert seen == ["before", "after"]
    assert (param < 1).all()


@on_both
@on_every_backend
def test_autograd_notices_and_nothing_is_recorded(name, backend, device):
    ours, *_ = OPTIMIZERS[name]
    w = torch.randn(3, device=device, requires_grad=True)
    w.grad = torch.ones_like(w)
    loss = (w * w).sum()
    with wk.use_backend(backend):
        ours([w]).step()
    assert w.is_leaf and w.requires_grad and w.grad_fn is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@on_both
@on_every_backend
def test_gradients_in_any_order_in_memory(name, backend, device):
    """channels-last parameters, gradients that are not, and the other way round."""
    ours, spec, _ = OPTIMIZERS[name]
    params = [torch.randn(4, 3, 5, 5, device=device).requires_grad_() for _ in range(2)]
    params[0].data = params[0].data.contiguous(memory_format=torch.channels_last)
    for param in params:
        param.grad = torch.randn_like(param)
    params[0].grad = params[0].grad.contiguous()
    params[1].grad = params[1].grad.contiguous(memory_format=torch.channels_last)
    others = twins(params)
    a, b = ours(params, lr=0.1), spec(others, lr=0.1)
    for _ in range(2):
        with wk.use_backend(backend):
            a.step()
        b.step()
    assert_same(params, others, rtol=1e-5, atol=1e-6)
    assert params[0].is_contiguous(memory_format=torch.channels_last)


@on_both
@on_every_backend
def test_a_negated_gradient(name, backend, device):
    """As autograd gives to a real part of a conjugate's product: its memory holds the negative."""
    ours, spec, _ = OPTIMIZERS[name]
    params = [torch.ones(1, device=device, requires_grad=True) for _ in range(2)]
    zero, factor = torch.zeros(1, device=device), torch.tensor([2 + 3j], device=device)
    for param in params:
        (torch.complex(zero, param).conj() * factor).real.sum().backward()
    assert params[0].grad.is_neg() and params[0].grad.tolist() == [3.0]
    a, b = ours([params[0]], lr=0.1), spec([params[1]], lr=0.1)
    with wk.use_backend(backend):
        a.step()
    b.step()
    assert_same(params[:1], params[1:], rtol=1e-5, atol=1e-6)


@on_both
def test_dispatch_modes_see_the_operator(name):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    ours, *_ = OPTIMIZERS[name]
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    with Record():
        ours([param]).step()
    assert f"wgan_kernels.{name}_.default" in seen
