import copy
import itertools
import math

import pytest
import torch
from cases import GROUP_NORM_IS_SOUND, assert_as_good, error, in_every_dtype, on_every_backend
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import wgan_kernels as wk
from wgan_kernels import _library
from wgan_kernels.reference import layer_norm as reference
from wgan_kernels.rules import norm as rules

EPS = 0.1  # so large that a mistake in it shows, and that a row of one element is not 1/√eps times its rounding

pytestmark = pytest.mark.usefixtures("however_small")

# name → (function, x's shape, its second argument, the shape of its weights)
CASES = {
    "one element": ("layer_norm", (3, 1), (1,), (1,)),
    "one row": ("layer_norm", (1, 9), (9,), (9,)),
    "odd": ("layer_norm", (5, 7), (7,), (7,)),
    "image": ("layer_norm", (3, 4, 5, 5), (4, 5, 5), (4, 5, 5)),
    "tokens": ("layer_norm", (2, 3, 33), (33,), (33,)),
    "lanes": ("layer_norm", (2, 3 * 64 + 7), (3 * 64 + 7,), (3 * 64 + 7,)),
    "wide": ("layer_norm", (2, 4096 + 65), (4096 + 65,), (4096 + 65,)),
    "many": ("layer_norm", (70, 3), (3,), (3,)),
    "group": ("group_norm", (3, 6, 3, 5), 2, (6,)),
    "one group": ("group_norm", (2, 3, 17), 1, (3,)),
    "groups of features": ("group_norm", (4, 6), 2, (6,)),
    "instance": ("group_norm", (2, 3, 4, 4), 3, (3,)),
    "rms": ("rms_norm", (3, 4, 5), (4, 5), (4, 5)),
}
in_every_case = pytest.mark.parametrize(("name", "shape", "over", "weights"), CASES.values(), ids=CASES)


def function(room, name, over):
    """(x, w, b) → y, by the reference or by the rules."""
    if isinstance(over, tuple):
        over = torch.Size(over)
    if name == "rms_norm":
        return lambda x, w, b: getattr(room, name)(x, over, w, EPS)
    return lambda x, w, b: getattr(room, name)(x, over, w, b, EPS)


def drawn(name, shape, weights, affine, device):
    """x, w, b, the cotangent of y and that of x's gradient, in float64."""
    x, delta, t = (torch.randn(shape, dtype=torch.float64, device=device) for _ in range(3))
    w, b = (torch.randn(weights, dtype=torch.float64, device=device) if given else None for given in affine)
    return x * 1.5 + 0.5, w, None if name == "rms_norm" else b, delta, t


def two_orders(norm, x, w, b, delta, t):
    """y, its gradients for the cotangent δ, and the gradients of ⟨t, ∂x⟩ in x, w and δ."""
    leaves = {"x": x, "w": w, "b": b}
    leaves = {name: None if leaf is None else leaf.detach().clone().requires_grad_() for name, leaf in leaves.items()}
    delta = delta.detach().clone().requires_grad_()
    given = [leaf for leaf in leaves.values() if leaf is not None]
    y = norm(**leaves)
    first = torch.autograd.grad(y, given, delta.detach(), retain_graph=True)
    (dx,) = torch.autograd.grad(y, leaves["x"], delta, create_graph=True)
    twice = [leaf for leaf in (leaves["x"], leaves["w"], delta) if leaf is not None]
    return [y, *first, dx, *torch.autograd.grad(dx, twice, t)]


@on_every_backend
@in_every_dtype
@in_every_case
def test_equals_reference(backend, device, dtype, name, shape, over, weights, poisoned, affine=(True, True)):
    drawing = [None if t is None else t.to(dtype) for t in drawn(name, shape, weights, affine, device)]
    exact = [None if t is None else t.double() for t in drawing]
    with wk.use_backend(backend):
        actual = two_orders(function(rules, name, over), *drawing)
    eager = two_orders(function(reference, name, over), *drawing)
    expected = two_orders(function(reference, name, over), *exact)
    for ours, theirs, known in zip(actual, eager, expected, strict=True):
        assert_as_good(ours, theirs, known)


@on_every_backend
@pytest.mark.parametrize("case", ["image", "group"])
@pytest.mark.parametrize("affine", [(True, False), (False, True), (False, False)])
def test_with_fewer_weights(backend, device, case, affine, poisoned):
    test_equals_reference(backend, device, torch.float32, *CASES[case], poisoned, affine)


def test_the_reference_is_pytorch():
    for name, shape, over, weights in CASES.values():
        x, w, b, *_ = drawn(name, shape, weights, (True, True), "cpu")
        theirs = getattr(F, name)(x, over, w, **({} if name == "rms_norm" else {"bias": b}), eps=EPS)
        torch.testing.assert_close(function(reference, name, over)(x, w, b), theirs)


SMALL = {
    "layer": ("layer_norm", (2, 2, 3), (2, 3), (2, 3)),
    "group": ("group_norm", (2, 4, 3), 2, (4,)),
    "instance": ("group_norm", (2, 2, 3), 2, (2,)),
    "rms": ("rms_norm", (2, 5), (5,), (5,)),
}


@on_every_backend
@pytest.mark.parametrize(("name", "shape", "over", "weights"), SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("affine", [(True, True), (False, False)])
def test_gradients(backend, device, name, shape, over, weights, affine):
    x, w, b, *_ = drawn(name, shape, weights, affine, device)
    given = [t.requires_grad_() for t in (x, w, b) if t is not None]
    norm = function(rules, name, over)

    def affine_or_not(x, *rest):
        rest = iter(rest)
        return norm(x, *(None if t is None else next(rest) for t in (w, b)))

    with wk.use_backend(backend):
        assert gradcheck(affine_or_not, given)
        assert gradgradcheck(affine_or_not, given)
        if (backend, device) == ("triton", "cpu"):  # the third derivative is plain PyTorch, and the interpreter slow
            return

        def slope(*given):
            return torch.autograd.grad(affine_or_not(*given).sin().sum(), given, create_graph=True)

        assert gradgradcheck(slope, given)


@on_every_backend
@pytest.mark.parametrize("centered", [True, False])
def test_opcheck(backend, device, centered):
    operators = _library.operators(backend)
    for dtype, affine in itertools.product((torch.float64, torch.bfloat16), (True, False)):
        x, delta, t = (torch.randn(4, 3, 5, dtype=dtype, device=device) for _ in range(3))
        w = torch.randn(10, dtype=dtype, device=device) if affine else None
        torch.library.opcheck(operators.layer_norm_fwd, (x, w, w, 5, 2, centered, EPS))
        _, mean, rstd = operators.layer_norm_fwd(x, w, w, 5, 2, centered, EPS)
        how = (mean, rstd, 5, 2, centered)
        for asked in ((True, True), (False, True), (True, False)):
            torch.library.opcheck(operators.layer_norm_bwd, (delta, x, w, *how, *asked))
        for asked in itertools.product((True, False), repeat=3):
            torch.library.opcheck(operators.layer_norm_bwd_bwd, (t, delta, x, w, *how, *asked))


@on_every_backend
@pytest.mark.parametrize("shape", [(0, 3), (0, 0), (3, 0)])
def test_nothing_to_normalise(backend, device, shape):
    operators = _library.operators(backend)
    x, w, width = torch.randn(shape, device=device), torch.randn(shape[1], device=device), shape[1]
    y, mean, rstd = operators.layer_norm_fwd(x, w, w, width, 1, True, EPS)
    how = (mean, rstd, width, 1, True)
    dx, dw, db = operators.layer_norm_bwd(x, x, w, *how, True, True)
    assert y.shape == dx.shape == shape
    assert dw.tolist() == db.tolist() == [0.0] * width
    ddelta, dx, dw = operators.layer_norm_bwd_bwd(x, x, x, w, *how, True, True, True)
    assert ddelta.shape == dx.shape == shape and dw.tolist() == [0.0] * width


@on_every_backend
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_stay_in_their_row(backend, device, bad):
    for position in (0, 4, 8):
        x, w, b, delta, t = (
            None if u is None else u.float() for u in drawn("layer_norm", (3, 9), (9,), (True, True), device)
        )
        x[1, position] = bad
        with wk.use_backend(backend):
            y, dx, dw, _, _, ddx, ddw, ddelta = two_orders(function(rules, "layer_norm", (9,)), x, w, b, delta, t)
        for rows in (y, dx, ddx, ddelta):
            assert rows[1].isnan().any() and rows[0].isfinite().all() and rows[2].isfinite().all()
        assert dw.isnan().any() and ddw.isnan().any()


@on_every_backend
@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_a_mean_far_from_zero(backend, device, mean):
    """The variance is not the difference of two large numbers."""
    x, w, b, delta, t = (u.float() for u in drawn("layer_norm", (4, 501), (501,), (True, True), device))
    x += mean
    arguments = x, w, b, delta, t
    with wk.use_backend(backend):
        actual = two_orders(function(rules, "layer_norm", (501,)), *arguments)
    eager = two_orders(lambda x, w, b: F.layer_norm(x, (501,), w, b, EPS), *arguments)
    exact = two_orders(function(reference, "layer_norm", (501,)), *(u.double() for u in arguments))
    for ours, theirs, known in zip(actual, eager, exact, strict=True):
        assert error(ours, known) <= 2 * error(theirs, known) + 1e-6 * known.abs().max().item()


@on_every_backend
def test_does_not_depend_on_the_number_of_threads(backend, device):
    width = 1001 if backend == "cpp" else 33  # the interpreter has one thread, and a slow one
    drawing = [t.float() for t in drawn("layer_norm", (70, width), (width,), (True, True), device)]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with wk.use_backend(backend):
                results.append(two_orders(function(rules, "layer_norm", (width,)), *drawing))
    finally:
        torch.set_num_threads(threads)
    for again in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], again, strict=True))


NORMS = {
    "layer": lambda: nn.LayerNorm([4, 3, 3]),
    "layer without bias": lambda: nn.LayerNorm([4, 3, 3], bias=False),
    "layer plain": lambda: nn.LayerNorm([3, 3], elementwise_affine=False),
    "group": lambda: nn.GroupNorm(2, 4),
    "group plain": lambda: nn.GroupNorm(2, 4, affine=False),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "instance plain": lambda: nn.InstanceNorm2d(4),
    "instance tracking": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "rms": lambda: nn.RMSNorm([4, 3, 3]),
    "rms plain": lambda: nn.RMSNorm([3], elementwise_affine=False),
}
with_every_norm = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)


def received(critic, x, context):
    """What a penalty and then a loss give to each parameter: a tensor, or None."""
    x = x.detach().requires_grad_()
    with context:
        scores = critic(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    params = list(critic.parameters())
    if not grad.requires_grad:
        return [scores, grad]
    twice = torch.autograd.grad(grad.square().sum(), params, allow_unused=True, retain_graph=True)
    return [scores, grad, *twice, *torch.autograd.grad(scores.square().sum(), params)]


@with_every_norm
@pytest.mark.parametrize("behind", [nn.Identity, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("before", [nn.Identity, nn.ReLU, lambda: nn.Conv2d(4, 4, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_parameters_receive_what_autograd_gives(norm, behind, before, channels_last):
    """Zeros where it gives zeros, None where it gives None; and the strides are its own."""
    critic = nn.Sequential(before(), norm(), behind(), nn.Flatten(), nn.Linear(36, 1)).double()
    if isinstance(critic[1], nn.GroupNorm) and not GROUP_NORM_IS_SOUND:
        pytest.skip("there is nothing to compare with: this torch's own double backward of GroupNorm is unsound")
    x = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    actual = received(critic, x, wk.second_order())
    expected = received(critic, x, wk.reference.second_order())
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)
    with wk.second_order():
        y = critic[1](x.requires_grad_())
    assert y.stride() == critic[1](x).stride()


@with_every_norm
def test_frozen_and_first_order_alone(norm):
    critic = nn.Sequential(nn.Conv2d(4, 4, 1), norm(), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1)).double()
    for frozen in critic[1].parameters():
        frozen.requires_grad_(False)
        x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
        params = [p for p in critic.parameters() if p.requires_grad]
        grads = []
        for context in (wk.second_order(), wk.reference.second_order()):
            with context:
                grads.append(torch.autograd.grad(critic(x).sum(), params))
        torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


@with_every_norm
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("how", ["autocast", "weights", "input"])
def test_half_types(norm, dtype, how):
    """The dtypes of autograd, and its precision at least; whatever PyTorch refuses is refused."""
    layer, x = norm(), torch.randn(2, 4, 3, 3).to(dtype)
    if how == "weights":
        layer = layer.to(dtype)

    def run(layer, x, context):
        leaf = x.detach().requires_grad_()
        with context, torch.autocast("cpu", dtype, enabled=how == "autocast" and x.dtype is dtype):
            y = layer(leaf)
        (grad,) = torch.autograd.grad(y.to(x.dtype).sin().sum(), leaf, create_graph=True)
        leaves = [leaf, *layer.parameters()]
        return [y, grad, *torch.autograd.grad(grad.square().sum(), leaves, allow_unused=True)]

    try:
        eager = run(layer, x, wk.reference.second_order())
    except RuntimeError:
        with pytest.raises(RuntimeError):
            run(layer, x, wk.second_order())
        return
    actual = run(layer, x, wk.second_order())
    exact = run(copy.deepcopy(layer).double(), x.double(), wk.reference.second_order())
    for a, e, known in zip(actual, eager, exact, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            assert a.dtype == e.dtype
            allowed = 2 * error(e, known) + 4 * torch.finfo(dtype).eps * known.abs().max().item()  # a few roundings
            assert error(a, known) <= allowed


def test_what_pytorch_refuses_is_refused_in_its_words():
    x = torch.randn(2, 4, 3, requires_grad=True)
    calls = [
        lambda: F.layer_norm(x, (4,)),
        lambda: F.layer_norm(x, (4, 3), torch.ones(3)),
        lambda: F.group_norm(x, 3),
        lambda: F.group_norm(x, 2, torch.ones(3)),
        lambda: F.group_norm(x[:1, :, :1].flatten(1), 4),
        lambda: F.instance_norm(x[..., :1]),
        lambda: F.rms_norm(x, (4,)),
    ]
    for call in calls:
        with pytest.raises((RuntimeError, ValueError)) as expected:
            call()
        with pytest.raises(expected.type) as actual, wk.second_order():
            call()
        assert str(actual.value) == str(expected.value)


def test_the_reference_leaves_norms_to_pytorch():
    x = torch.randn(2, 4, requires_grad=True)
    with wk.second_order():
        assert type(F.layer_norm(x, (4,)).grad_fn).__name__ == "NormBackward"
        with wk.use_backend("reference"):
            assert type(F.layer_norm(x, (4,)).grad_fn).__name__ == "NativeLayerNormBackward0"


def test_small_norms_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(rules, "_WORTHWHILE", 9)
    with wk.second_order():
        for rows, rule in ((2, False), (3, True)):
            y = F.layer_norm(torch.randn(rows, 4, requires_grad=True), (4,))
            assert (type(y.grad_fn).__name__ == "NormBackward") == rule
