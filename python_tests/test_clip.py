import math

import pytest
import torch
from cases import BATCHES, in_every_dtype, on_every_backend
from torch import nn

import wgan_kernels as wk
from wgan_kernels import _library, _native, reference

CLIPPABLE = [batch for name, batch in BATCHES.items() if name != "expanded"]


def awkward_list(dtype, device):
    """Tensors of every shape and stride, with NaN and both infinities first, in the middle and last."""
    tensors = [batch(dtype=dtype, device=device) for batch in CLIPPABLE]
    tensors += [torch.randn((), dtype=dtype, device=device), torch.randn(33, 3, dtype=dtype, device=device)[::3, 1]]
    for bad in (math.nan, math.inf, -math.inf):
        for position in (0, 8, 16):
            tensor = torch.randn(17, dtype=dtype, device=device)
            tensor[position] = bad
            tensors.append(tensor)
    return tensors


def copies(tensors):
    """Equal values in equal strides, each in memory of its own."""
    return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t) for t in tensors]


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)


@on_every_backend
@in_every_dtype
@pytest.mark.parametrize("bounds", [(0.3,), (-0.1, 0.7), (0.0,), (math.inf,), (-math.inf, 0.1)], ids=str)
def test_equals_reference(backend, device, dtype, bounds):
    tensors = awkward_list(dtype, device)
    expected = copies(tensors)
    reference.clip_(expected, *bounds)
    with wk.use_backend(backend):
        assert wk.clip_(tensors, *bounds) is None
    assert_same(tensors, expected)


@on_every_backend
def test_mixed_dtypes_in_one_call(backend, device):
    tensors = [
        t
        for dtype in (torch.float64, torch.bfloat16, torch.float32, torch.float16)
        for t in awkward_list(dtype, device)
    ]
    expected = copies(tensors)
    reference.clip_(expected, 0.2)
    with wk.use_backend(backend):
        wk.clip_(tensors, 0.2)
    assert_same(tensors, expected)


@on_every_backend
def test_memory_around_a_view_is_left_alone(backend, device):
    whole = torch.full((6, 8), 5.0, device=device)
    with wk.use_backend(backend):
        wk.clip_([whole[1:4, 2:7:2]], 1.0)
    expected = torch.full((6, 8), 5.0, device=device)
    expected[1:4, 2:7:2] = 1.0
    assert torch.equal(whole, expected)


@on_every_backend
def test_large_lists_cross_thread_boundaries(backend, device, three_threads):
    tensors = [torch.randn(n, device=device) for n in (1, 400_000, 3, 700_001, 0, 5)]
    expected = copies(tensors)
    reference.clip_(expected, 0.5)
    with wk.use_backend(backend):
        wk.clip_(tensors, 0.5)
    assert_same(tensors, expected)


@on_every_backend
def test_module_iterable_or_tensor(backend, device):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 1)).to(device)
    with wk.use_backend(backend):
        wk.clip_(net, 0.01)
        assert all(p.abs().max() <= 0.01 and p.requires_grad for p in net.parameters())
        wk.clip_(net.parameters(), 0.005)
        assert all(p.abs().max() <= 0.005 for p in net.parameters())
        tensor = torch.tensor([-2.0, 2.0], device=device)
        wk.clip_(tensor, low=-1.0, high=1.5)
        assert tensor.tolist() == [-1.0, 1.5]
        wk.clip_(tensor, bound=0.5)
        assert tensor.tolist() == [-0.5, 0.5]
        wk.clip_((tensor,), 0.25)
        assert tensor.tolist() == [-0.25, 0.25]
        wk.clip_([], 1.0)
        wk.clip_(nn.Identity(), 1.0)


@on_every_backend
def test_half_bounds_are_rounded_as_torch_does(backend, device):
    tensor = torch.ones(3, dtype=torch.bfloat16, device=device)
    with wk.use_backend(backend):
        wk.clip_(tensor, 0.01)
    assert torch.equal(tensor, torch.ones_like(tensor).clamp_(-0.01, 0.01))


@on_every_backend
def test_float64_bounds_keep_their_digits(backend, device):
    tensor = torch.ones(3, dtype=torch.float64, device=device)
    with wk.use_backend(backend):
        wk.clip_(tensor, 0.1)
    assert tensor.tolist() == [0.1] * 3


@on_every_backend
def test_autograd_notices(backend, device):
    """Values that a backward pass needs may not be clamped away unseen."""
    w = torch.randn(3, device=device, requires_grad=True)
    loss = (w * w).sum()
    with wk.use_backend(backend):
        wk.clip_([w], 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@on_every_backend
def test_nothing_is_recorded(backend, device):
    w = torch.randn(3, device=device, requires_grad=True)
    with wk.use_backend(backend):
        wk.clip_([w], 0.1)
    assert w.is_leaf and w.requires_grad and w.grad_fn is None


@on_every_backend
def test_inference_tensors(backend, device):
    with torch.inference_mode():
        w = torch.full((3,), 2.0, device=device)
        with wk.use_backend(backend):
            wk.clip_([w], 1.0)
        assert w.tolist() == [1.0] * 3
    parameter = torch.full((2,), 2.0, device=device)
    with wk.use_backend(backend):
        wk.clip_([parameter, w], 0.5)
    assert parameter.tolist() == [0.5] * 2 and w.tolist() == [0.5] * 3


@on_every_backend
def test_opcheck(backend, device):
    params = [torch.randn(3, 4, device=device), torch.randn(5, device=device)]
    torch.library.opcheck(_library.operators(backend).clip_, (params, -0.5, 0.5))


@on_every_backend
def test_negated_views(backend, device):
    """The imaginary part of a conjugate holds −w: torch's operators know, a kernel sees the memory alone."""
    w = torch.tensor([3.0, -3.0, 0.5, -0.2], device=device)
    strided = torch.complex(torch.zeros_like(w), w).conj().imag
    tensors = [w.clone(), strided, nn.Parameter(strided[1:].detach()), torch._neg_view(w.clone())]
    tensors[2].data = torch._neg_view(w.clone())  # in memory of its own
    assert [tensor.is_neg() for tensor in tensors] == [False, True, True, True]
    assert tensors[3].is_contiguous()
    versions = [tensor._version for tensor in tensors]
    with wk.use_backend(backend):
        wk.clip_(tensors, -1.0, 2.0)
    positive, negative = [2.0, -1.0, 0.5, -0.2], [-1.0, 2.0, -0.5, 0.2]
    for tensor, values in zip(tensors, (positive, negative, negative, negative), strict=True):
        torch.testing.assert_close(tensor.detach().resolve_neg(), torch.tensor(values, device=device), rtol=0, atol=0)
    assert all(tensor._version > version for tensor, version in zip(tensors, versions, strict=True))


def test_ends_by_name():
    """Each form that says what it means; what does not is in test_errors.py."""
    for bounds, names, expected in (
        ((-1.0, 2.0), {}, [-1.0, 2.0]),
        ((-1.0,), {"high": 2.0}, [-1.0, 2.0]),
        ((), {"low": -1.0, "high": 2.0}, [-1.0, 2.0]),
        ((2.0,), {}, [-2.0, 2.0]),
        ((), {"bound": 2.0}, [-2.0, 2.0]),
    ):
        for clip_ in (wk.clip_, reference.clip_):
            tensor = torch.tensor([-3.0, 3.0])
            clip_(tensor, *bounds, **names)
            assert tensor.tolist() == expected


@in_every_dtype
def test_a_list_of_plain_tensors_is_read_at_once(dtype):
    """By DLPack's table of functions, which every torch that is supported has."""
    tensors = [*awkward_list(dtype, "cpu"), nn.Parameter(torch.randn(3, 4, dtype=dtype))]
    expected = [tensor.detach().clamp(-0.3, 0.3) for tensor in tensors]
    assert _native.cpu.clip_list(tensors, -0.3, 0.3)
    assert_same([tensor.detach() for tensor in tensors], expected)


UNREADABLE = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.empty(2, device="meta"),
    "int": lambda: torch.ones(2, dtype=torch.int32),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "float8": lambda: torch.ones(2).to(torch.float8_e5m2),
    "expanded": lambda: torch.ones(1).expand(3),
    "no tensor": lambda: 2.0,
}


@pytest.mark.parametrize("other", UNREADABLE.values(), ids=UNREADABLE)
def test_a_list_with_something_else_is_left_alone(other):
    first = torch.full((3,), 2.0)
    assert _native.cpu.clip_list([first, other(), first], -1.0, 1.0) is False
    assert first.tolist() == [2.0] * 3


def test_subclasses_take_the_operator():
    """A subclass may override what clamping means, so the list shortcut leaves it to the dispatcher."""

    class Tagged(torch.Tensor):
        pass

    tensor = torch.full((3,), 2.0).as_subclass(Tagged)
    assert not _native.cpu.clip_list([tensor], -1.0, 1.0)
    wk.clip_([tensor], 1.0)
    assert tensor.tolist() == [1.0] * 3


def test_dispatch_modes_see_the_operator():
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Record():
        wk.clip_([torch.randn(3)], 1.0)
    assert "wgan_kernels.clip_.default" in seen


def test_functorch_tensors():
    def clipped(x):
        y = x.clone()
        wk.clip_([y], 0.5)
        return y

    x = torch.randn(3, 4)
    with wk.use_backend("reference"):
        assert torch.equal(torch.vmap(clipped)(x), x.clamp(-0.5, 0.5))


def test_mixed_devices_are_grouped():
    """meta stands in for a second device: it has shapes but no memory."""
    tensors = [torch.full((3,), 2.0), torch.empty(4, device="meta"), torch.full((2,), -2.0)]
    wk.clip_(tensors, 1.0)
    assert tensors[0].tolist() == [1.0] * 3 and tensors[2].tolist() == [-1.0] * 2


def test_a_backend_that_serves_one_device_only_writes_nothing():
    tensors = [torch.full((3,), 2.0), torch.empty(4, device="meta")]
    with wk.use_backend("cpp"), pytest.raises(RuntimeError, match="cannot run on meta"):
        wk.clip_(tensors, 1.0)
    assert tensors[0].tolist() == [2.0] * 3
