"""Group norms of images in channels-last memory: the kernels beside PyTorch's group_norm and its derivatives."""

import pytest
import torch
import torch.nn.functional as F
from cases import needs_compiled
from critics import is_one_node
from torch import nn

import wgan_kernels as wk
from wgan_kernels.rules import _group_norm

pytestmark = needs_compiled
EPS = 1e-3
# samples, height, width, channels, groups
CASES = {
    "groups": (9, 5, 7, 6, 3),
    "one group": (5, 4, 4, 17, 1),
    "instances": (10, 3, 11, 33, 33),
    "one pixel": (3, 1, 1, 8, 2),
    "one sample": (1, 20, 13, 4, 2),
    "one channel a group of one": (2, 9, 5, 1, 1),
    "wide": (6, 2, 3, 200, 8),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def arguments(case, weights=True, dtype=torch.float32, offset=0.0):
    """t, delta, x as the kernels have them, w, b."""
    samples, height, width, channels, _ = case
    torch.manual_seed(sum(case))
    t, delta, x = torch.randn(3, samples, height, width, channels, dtype=torch.float64)
    w, b = torch.randn(2, channels, dtype=torch.float64) if weights else (None, None)
    return [None if each is None else each.to(dtype) for each in (t, delta, x + offset, w, b)]


def truth(case, t, delta, x, w, b):
    """y, dx, dw, db; what δ, x and w receive of ⟨t, dx⟩: by PyTorch."""

    def turned(images):
        return images.permute(0, 3, 1, 2)

    delta, x = delta.clone().requires_grad_(), x.clone().requires_grad_()
    w = torch.ones(x.shape[-1], dtype=x.dtype) if w is None else w.clone()
    b = torch.zeros_like(w) if b is None else b.clone()
    y = F.group_norm(turned(x), case[-1], w.requires_grad_(), b.requires_grad_(), EPS).permute(0, 2, 3, 1)
    first = torch.autograd.grad(y, (x, w, b), delta, create_graph=True)
    second = torch.autograd.grad(first[0], (delta, x, w), t)
    return [found.detach() for found in (y, *first, *second)]


def kernels(case, t, delta, x, w, b):
    y, *stats = _group_norm.fwd(x, w, b, case[-1], EPS)
    first = _group_norm.bwd(delta, x, w, *stats, case[-1], True)
    return [y, *first, *_group_norm.bwd_bwd(t, delta, x, w, *stats, case[-1])]


@pytest.fixture
def poisoned():
    """Outputs full of NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("weights", [True, False])
@cases
def test_exactly(case, weights, poisoned):
    given = arguments(case, weights, torch.float64)
    torch.testing.assert_close(kernels(case, *given), truth(case, *given), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("weights", [True, False])
@cases
def test_as_exact_as_eager(case, weights, offset, poisoned):
    given = arguments(case, weights, offset=offset)
    exact = truth(case, *(None if each is None else each.double() for each in given))
    for ours, theirs, true in zip(kernels(case, *given), truth(case, *given), exact, strict=True):
        scale = true.abs().max().item()
        error, allowed = ((found - true).abs().max().item() for found in (ours, theirs))
        assert error <= 2 * allowed + 4e-6 * (1 + offset) * (1 + scale)


@cases
def test_the_same_whatever_the_number_of_threads(case):
    given, found = arguments(case), []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found.append(kernels(case, *given))
        finally:
            torch.set_num_threads(before)
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_what_is_no_number_stays_with_its_sample(poison):
    case = CASES["groups"]
    t, delta, x, w, b = arguments(case)
    x[4, 2, 3, 1] = poison
    y, dx, _, _, pushed, bent, _ = kernels(case, t, delta, x, w, b)
    others = [i for i in range(len(x)) if i != 4]
    for found in (y, dx, pushed, bent):
        assert found[4, ..., :2].isnan().all() and found[others].isfinite().all() and found[4, ..., 2:].isfinite().all()


def test_nothing_of_x_where_it_is_not_asked_for():
    _, delta, x, w, b = arguments(CASES["groups"])
    _, *stats = _group_norm.fwd(x, w, b, 3, EPS)
    dx, *sums = _group_norm.bwd(delta, x, w, *stats, 3, False)
    assert dx.numel() == 0
    for one, other in zip(sums, _group_norm.bwd(delta, x, w, *stats, 3, True)[1:], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["fwd", "bwd", "bwd_bwd"])
def test_opcheck(name):
    case = CASES["groups"]
    t, delta, x, w, b = arguments(case)
    _, *stats = _group_norm.fwd(x, w, b, 3, EPS)
    given = {"fwd": (x, w, b, 3, EPS), "bwd": (delta, x, w, *stats, 3, True), "bwd_bwd": (t, delta, x, w, *stats, 3)}
    torch.library.opcheck(getattr(_group_norm, name), given[name], test_utils=("test_schema", "test_faketensor"))


WRONG = {
    "halves": lambda delta, x, w, m, r: (delta.half(), x.half(), w, m, r, 3),
    "another memory": lambda delta, x, w, m, r: (delta, x.transpose(1, 2), w, m, r, 3),
    "no samples": lambda delta, x, w, m, r: (delta[:0], x[:0], w, m[:0], r[:0], 3),
    "groups that do not divide": lambda delta, x, w, m, r: (delta, x, w, m, r, 4),
    "no groups": lambda delta, x, w, m, r: (delta, x, w, m, r, 0),
    "another delta": lambda delta, x, w, m, r: (delta[1:], x, w, m, r, 3),
    "another type of delta": lambda delta, x, w, m, r: (delta.double(), x, w, m, r, 3),
    "another weight": lambda delta, x, w, m, r: (delta, x, w[1:], m, r, 3),
    "other statistics": lambda delta, x, w, m, r: (delta, x, w, m[1:], r, 3),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    _, delta, x, w, b = arguments(CASES["groups"])
    _, *stats = _group_norm.fwd(x, w, b, 3, EPS)
    with pytest.raises(RuntimeError, match="group_norm_bwd"):
        _group_norm.bwd(*WRONG[name](delta, x, w, *stats), True)


NORMS = {
    "groups": lambda: nn.GroupNorm(3, 6),
    "one group": lambda: nn.GroupNorm(1, 6),
    "without weights": lambda: nn.GroupNorm(2, 6, affine=False),
    "instances": lambda: nn.InstanceNorm2d(6, affine=True),
    "instances without weights": lambda: nn.InstanceNorm2d(6),
}


@pytest.mark.parametrize("way", ["penalty", "step", "backend"])
@pytest.mark.parametrize("name", NORMS)
def test_critics(name, way, monkeypatch):
    found, seen, bwd_bwd = [], [], _group_norm.bwd_bwd
    monkeypatch.setattr(_group_norm, "bwd_bwd", lambda *args: seen.append(1) or bwd_bwd(*args))
    for of in (wk, wk.reference):
        torch.manual_seed(1)
        layers = [nn.Conv2d(1, 6, 3, 2, 1), NORMS[name](), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3), NORMS[name]()]
        critic = nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(24, 1)).double()
        x, y = torch.randn(2, 9, 1, 8, 8, dtype=torch.float64).unbind()
        if way == "step":
            critic = critic.to(memory_format=torch.channels_last)
            step = of.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), "r1", tune=False)
            step(x, y)
            found.append(list(critic.parameters()))
            continue
        with wk.use_backend("auto" if way == "penalty" or of is not wk else "reference"):
            value = of.r1_penalty(critic, x)
            assert is_one_node(value) is (of is wk and way == "penalty")
            found.append([value, *torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)])
    assert len(seen) == (0 if way == "backend" else 2)
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
