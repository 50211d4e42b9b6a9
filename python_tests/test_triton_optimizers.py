"""What Triton's optimizer kernels have of their own: one launch, counts of steps, alignments, what they refuse."""

import math

import pytest
import torch
from cases import DTYPES, TOLERANCE, error, on_every_backend
from optimizers import OPTIMIZERS, twins

import wgan_kernels as wk

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from wgan_kernels._triton import _table, adam, rmsprop  # noqa: E402

on_triton = pytest.mark.parametrize(
    ("backend", "device"), [p for p in on_every_backend.args[1] if "triton" in p.values]
)
with_every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
SETTINGS = {
    "rmsprop": {"lr": 0.02, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "clip": 1.5},
    "adam": {"lr": 0.02, "betas": (0.5, 0.9), "weight_decay": 0.1, "clip": 1.5},
}
LISTS = {"rmsprop": 5, "adam": 4}
# From one program without an element to several programs, the last of them full or not.
COUNTS = (0, 5, 1024, 1027, 2049)


class Counted:
    """A kernel whose launches are noted."""

    def __init__(self, kernel):
        self.kernel, self.grids = kernel, []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return self.kernel[grid]


@pytest.fixture
def launches(monkeypatch):
    counted = {"rmsprop": Counted(rmsprop.rmsprop_kernel), "adam": Counted(adam.adam_kernel)}
    monkeypatch.setattr(rmsprop, "rmsprop_kernel", counted["rmsprop"])
    monkeypatch.setattr(adam, "adam_kernel", counted["adam"])
    _table._kept.cache_clear()
    return {name: kernel.grids for name, kernel in counted.items()}


def leaf(name, *lists, steps, lr_tensor=None, grad_scale=None, found_inf=None):
    """One call of the launcher, without what the optimizer does before it."""
    launcher = {"rmsprop": rmsprop.rmsprop_, "adam": adam.adam_}[name]
    settings = (0.01, 0.9, 1e-8, 0.1, 0.5, 1.0, False) if name == "rmsprop" else (0.01, 0.5, 0.9, 1e-8, 0.1, 1.0, False)
    launcher(*lists, steps, lr_tensor, grad_scale, found_inf, *settings)


def tensors(name, *shape, device="cpu", dtype=torch.float32):
    """One tensor for each list, the squares above those of the averages."""
    made = [torch.rand(*shape, device=device, dtype=dtype) - 0.5 for _ in range(LISTS[name])]
    made[2 if name == "rmsprop" else 3].add_(1)
    return made


@on_triton
@with_every_optimizer
def test_one_launch_for_a_dtype_and_one_count_for_a_step(name, backend, device, launches):
    params = [torch.randn(n, device=device, dtype=dtype).requires_grad_() for dtype in DTYPES for n in COUNTS]
    optimizer = OPTIMIZERS[name][0](params, **SETTINGS[name])
    for param in params:
        param.grad = torch.randn_like(param)
    with wk.use_backend(backend):
        for k in (1, 2):
            optimizer.step()
            assert len(launches[name]) == k * len(DTYPES)
            assert {optimizer.state[param]["step"].item() for param in params} == {k}
    assert _table._kept.cache_info().misses == len(DTYPES)
    # Programs have 1024 elements each, of float64 512.
    assert set(launches[name]) == {(1 + 1 + 1 + 2 + 3,), (1 + 1 + 2 + 3 + 5,)}


@on_triton
def test_the_count_of_programs_done_is_back_at_zero(backend, device):
    lists = [[tensor] for tensor in tensors("adam", 5000, device=device)]
    step = torch.zeros((), device=device)
    _table._kept.cache_clear()
    for k in range(3):
        leaf("adam", *lists, steps=[step])
        (table,) = _table.tables(lists, [step], 1024)
        assert table.programs == 5 and table.entries.tolist()[-1] == 0 and step.item() == k + 1
    assert _table._kept.cache_info().misses == 1


@on_triton
@with_every_optimizer
def test_nothing_is_written_where_an_infinity_was_found(name, backend, device):
    lists = [[tensor] for tensor in tensors(name, 3000, device=device)]
    before = [list_[0].clone() for list_ in lists]
    step = torch.full((), 6.0, device=device)
    for found in (1.0, 0.0):
        leaf(name, *lists, steps=[step], found_inf=torch.full((1,), found, device=device))
        changed = [not torch.equal(list_[0], old) for list_, old in zip(lists, before, strict=True)]
        assert changed == [False if found else i != 1 for i in range(len(lists))]
        assert step.item() == (6 if found else 7)


@on_triton
@with_every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_of_the_device(name, backend, device, dtype):
    lists, others = ([[t.clone()] for t in made] for made in [tensors(name, 40, device=device)] * 2)
    steps = [torch.zeros((), device=device) for _ in range(2)]

    def number(value):
        return torch.tensor(value, dtype=dtype, device=device)

    leaf(name, *lists, steps=steps[:1], lr_tensor=number(0.01), grad_scale=number(4.0), found_inf=number(0.0))
    others[1][0] /= 4
    leaf(name, *others, steps=steps[1:])
    for actual, expected in zip([lists[0], *lists[2:]], [others[0], *others[2:]], strict=True):
        torch.testing.assert_close(actual[0], expected[0], rtol=1e-6, atol=1e-7)


@on_triton
@with_every_optimizer
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_alignment(name, backend, device, dtype):
    """Views that begin off 16 bytes, by as much in every list or not, give what aligned tensors give."""
    for count in (1, 9, 2055):
        for offsets in ([3] * 5, [0, 1, 2, 3, 4], [0, 1, 0, 0, 0], [8, 8, 8, 8, 8]):
            plain = tensors(name, count, device=device, dtype=dtype)
            buffers = [torch.full((count + 12,), 7.0, device=device, dtype=dtype) for _ in plain]
            views = [buffer[o : o + count] for buffer, o in zip(buffers, offsets, strict=False)]
            for view, tensor in zip(views, plain, strict=True):
                view.copy_(tensor)
            leaf(name, *([tensor] for tensor in plain), steps=[torch.zeros((), device=device)])
            leaf(name, *([view] for view in views), steps=[torch.zeros((), device=device)])
            for tensor, view, buffer, offset in zip(plain, views, buffers, offsets, strict=False):
                torch.testing.assert_close(view, tensor)
                assert (buffer[:offset] == 7).all() and (buffer[offset + count :] == 7).all()


@on_triton
@with_every_optimizer
def test_a_step_within_a_capture(name, backend, device, monkeypatch):
    """Its table is written by kernels; here they run, where a graph would keep them."""
    ours = [torch.randn(n, device=device).requires_grad_() for n in COUNTS * 2]
    for param in ours:
        param.grad = torch.randn_like(param)
    others = twins(ours)
    optimizers = [OPTIMIZERS[name][0](params, **SETTINGS[name]) for params in (ours, others)]
    with wk.use_backend(backend):
        optimizers[1].step()
        optimizers[1].step()
        monkeypatch.setattr(_table, "_is_capturing", lambda device: True)
        optimizers[0].step()
        optimizers[0].step()
    for a, b in zip(ours, others, strict=True):
        assert torch.equal(a, b)
        assert optimizers[0].state[a]["step"].item() == 2


@triton.jit
def one_minus_exp_kernel(y_ptr, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out_ptr + i, adam.one_minus_exp(tl.load(y_ptr + i)))


@on_triton
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_bias_correction_to_the_last_digits(backend, device, dtype):
    """1 − βᵗ, relative to itself; 0ᵗ is 0."""
    betas, counts = (0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-7), (1, 2, 3, 10, 693, 1000, 99_999, 1_000_000)
    logs = [t * (math.log(beta) if beta else -math.inf) for beta in betas for t in counts]
    y = torch.tensor(logs, dtype=dtype, device=device)
    actual = torch.full_like(y, math.nan)
    one_minus_exp_kernel[(1,)](y, actual, N=len(logs))
    exact = torch.tensor([-math.expm1(log) for log in logs], dtype=torch.float64, device=device)
    assert error(actual / exact, torch.ones_like(exact)) <= TOLERANCE[dtype]
    assert actual[: len(counts)].tolist() == [1.0] * len(counts)


@on_triton
@with_every_optimizer
@pytest.mark.parametrize(
    "wrong",
    [lambda t: t[:, ::2], lambda t: t[:3], lambda t: t.t(), lambda t: t.double(), lambda t: t.to("meta")],
    ids=("gaps", "size", "order", "dtype", "device"),
)
def test_refuses_what_it_would_misread(name, backend, device, wrong):
    for place in range(LISTS[name]):
        lists = [[tensor] for tensor in tensors(name, 4, 6, device=device)]
        lists[place] = [wrong(lists[place][0])]
        before = [list_[0].clone() for list_ in lists]
        with pytest.raises(RuntimeError, match="tensor 0 must be"):
            leaf(name, *lists, steps=[torch.zeros((), device=device)])
        assert all(torch.equal(list_[0], old) for list_, old in zip(lists, before, strict=True) if not old.is_meta)


@on_triton
@with_every_optimizer
def test_refuses_other_steps_scalars_and_lengths(name, backend, device):
    lists = [[tensor] for tensor in tensors(name, 4, device=device)]
    step, half = torch.zeros((), device=device), torch.zeros((), dtype=torch.float16, device=device)
    for steps, scalars, message in (
        ([half], {}, "step 0"),
        ([torch.zeros(2, device=device)], {}, "step 0"),
        ([step, step], {}, "lengths"),
        ([step], {"lr_tensor": half}, "lr_tensor"),
        ([step], {"found_inf": torch.zeros(2, device=device)}, "found_inf"),
    ):
        with pytest.raises(RuntimeError, match=message):
            leaf(name, *lists, steps=steps, **scalars)
    with pytest.raises(RuntimeError, match="lengths"):
        leaf(name, *lists[:-1], [], steps=[step]) if name == "adam" else leaf(name, *lists, steps=[])
    leaf(name, *([] for _ in lists), steps=[])
    assert step.item() == 0


def test_momentum_needs_its_buffers():
    lists = [[tensor] for tensor in tensors("rmsprop", 4)]
    with pytest.raises(RuntimeError, match="momentum_buffers"):
        leaf("rmsprop", *lists[:-1], [], steps=[torch.zeros(())])
