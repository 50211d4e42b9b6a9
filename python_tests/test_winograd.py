"""Convolutions with 4×4 and 3×3 kernels and stride 2 by minimal filtering are PyTorch's, in every map."""

import pytest
import torch
from cases import error, needs_compiled
from convolutions import both_ways, double, each_kind, geometry, last, layer, ours, theirs
from hypothesis import assume, given
from hypothesis import strategies as st

from wgan_kernels.rules._geometry import size
from wgan_kernels.rules.conv import MAPS

pytestmark = needs_compiled
operators = torch.ops.wgan_kernels


# --- the three maps -------------------------------------------------------------------------------------------------
sides = st.tuples(st.integers(1, 17), st.integers(1, 17))
paddings = st.tuples(st.integers(0, 3), st.integers(0, 3))
channels = st.sampled_from([32, 64, 96])
KINDS = [(2, False, 4), (2, False, 3), (2, True, 4), (2, True, 3), (1, False, 3)]  # stride, transposed, taps


@st.composite
def weights(draw, *shape, taps):
    """Of either memory format, or a part of larger ones."""
    memory = draw(st.sampled_from(["contiguous", "channels-last", "of more channels", "of larger kernels"]))
    if memory == "of more channels":
        return torch.randn(shape[0] + 1, 2 * shape[1], taps, taps)[1:, ::2]
    if memory == "of larger kernels":
        return torch.randn(*shape, taps + 2, taps + 1)[..., 1:-1, 1:]
    return last(torch.randn(*shape, taps, taps)) if memory == "channels-last" else torch.randn(*shape, taps, taps)


@st.composite
def convolutions(draw):
    """(x, w, b, δ, how)"""
    stride, transposed, taps = draw(st.sampled_from(KINDS))
    batch = draw(st.integers(1, 3))
    inner, outer = draw(channels), draw(channels)
    more = draw(st.tuples(st.integers(0, 1), st.integers(0, 1))) if transposed else 0
    padding = draw(paddings) if stride == 2 else draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    how = geometry(padding, more, transposed, stride=stride)
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(batch, inner, *draw(sides))
    w = draw(weights(*((inner, outer) if transposed else (outer, inner)), taps=taps))
    b = torch.randn(outer) if draw(st.booleans()) else None
    assume(min(size(x.shape, w.shape, how)) > 0)
    delta = torch.randn_like(torch.convolution(x, w, b, *how))
    images = (t if draw(st.booleans()) else last(t) for t in (x, delta))
    return *images, w, b, how


@given(convolutions())
def test_any_geometry(drawn):
    x, delta, w, b, how = drawn
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        results = ours(x, w, b, delta, how)
    finally:
        torch.use_deterministic_algorithms(False)
    exact = theirs(*double(x, w, b, delta), how)
    for result, plain, truth in zip(results, theirs(x, w, b, delta, how), exact, strict=True):
        # A pixel at the border takes all products of its tile, and PyTorch the few that meet the image.
        allowed = 2 * error(plain, truth) + 12 * torch.finfo(torch.float32).eps * truth.abs().max().item()
        assert result.dtype == x.dtype and error(result, truth) <= allowed
    y, of_x, of_w = results
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, of_x))
    assert of_w.stride() == torch.empty_like(w).stride()


@each_kind
def test_rounding_errors_are_those_of_pytorch(how, taps):
    x, w, b, delta = layer(torch.randn(8, 64, 14, 14), 64, 96, how, taps)
    exact = theirs(*double(x, w, b, delta), how)
    for result, plain, truth in zip(ours(x, w, b, delta, how), theirs(x, w, b, delta, how), exact, strict=True):
        assert (result - truth).norm() <= 1.7 * (plain - truth).norm()  # 0.2 to 1.54 measured


# 128 and 256 channels have tiles of other numbers, and 64 a slice of its own
@pytest.mark.parametrize(("inner", "outer"), [(128, 32), (32, 256), (288, 32), (64, 160)])
@each_kind
def test_many_channels(how, taps, inner, outer):
    x, w, b, delta = layer(torch.randn(5, inner, 11, 13), inner, outer, how, taps)
    for result, truth in zip(ours(x, w, b, delta, how), theirs(*double(x, w, b, delta), how), strict=True):
        assert error(result, truth) <= 2e-6 * truth.abs().max()


@each_kind
@pytest.mark.parametrize("part", [lambda b: b.repeat_interleave(2)[::2], lambda b: b[:1].expand(64)])
def test_a_bias_in_any_memory(how, taps, part):
    x, w, b, _ = layer(torch.randn(64, 64, 14, 14), 64, 64, how, taps)
    y = MAPS.forward(x, w, part(b), how)
    torch.testing.assert_close(y, torch.convolution(x, w, part(b), *how), rtol=1e-4, atol=1e-3)


@each_kind
def test_an_empty_batch(how, taps):
    x, w, b, delta = layer(torch.randn(1, 32, 6, 6), 32, 64, how, taps)
    y, of_x, of_w = ours(x[:0], w, b, delta[:0], how)
    assert y.shape == delta[:0].shape and of_x.shape == x[:0].shape and of_w.eq(0).all()


@each_kind
def test_the_same_bits_with_any_number_of_threads(how, taps):
    x, w, b, delta = layer(torch.randn(6, 64, 13, 11), 64, 64, how, taps)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(ours(x, w, b, delta, how))
    finally:
        torch.set_num_threads(before)
    for each in zip(*results, strict=True):
        assert all(torch.equal(each[0], other) for other in each[1:])


# --- values that are not finite ---------------------------------------------------------------------------------------
def spoilt(how, name, where, value, x, w, b, delta):
    """Where the results of the three maps are not finite, with this value at one place of one argument.

    Wherever direct convolution is not finite they are not, and all that stays finite stays what it was.
    """
    spoiled = {"x": x, "w": w, "b": b, "delta": delta}
    spoiled[name] = spoiled[name].clone()
    spoiled[name][where] = value
    bad = []
    before, direct = ours(x, w, b, delta, how), theirs(**spoiled, how=how)
    for result, plain, truth in zip(ours(**spoiled, how=how), before, direct, strict=True):
        bad.append(~result.isfinite())
        assert bad[-1][~truth.isfinite()].all() and torch.equal(result[~bad[-1]], plain[~bad[-1]])
    return bad


in_every_value = pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])


@both_ways
@in_every_value
@pytest.mark.parametrize("name", ["x", "delta"])
def test_a_pixel_that_is_not_finite_spoils_its_tiles_alone(how, value, name):
    drawn = layer(torch.randn(2, 32, 20, 22), 32, 32, how)
    of_x, of_delta, of_w = spoilt(how, name, (1, 5, 4, 7), value, *drawn)
    image, other = (of_x, of_delta) if name == "x" else (of_delta, of_x)
    assert not image[0].any() and not other.any()
    is_large = (name == "delta") is not how.transposed  # what it is a pixel of is then the small image
    for axis in (0, 1):  # two tiles of three outputs, in the large image of every second pixel
        assert 2 <= image[1].any(0).any(axis).sum() <= (12 if is_large else 6)
    channel = of_w[5] if is_large else of_w[:, 5]
    assert of_w.sum() == channel.sum() == channel.numel() // (1 if is_large else 4)  # one phase, or all of them


@both_ways
@in_every_value
def test_a_weight_that_is_not_finite_spoils_its_channels_alone(how, value):
    drawn = layer(torch.randn(2, 32, 10, 12), 32, 32, how)
    of_x, of_delta, of_w = spoilt(how, "w", (4, 6, 1, 2), value, *drawn)
    large, small = (of_x, of_delta) if how.transposed else (of_delta, of_x)
    assert small[:, 4].all() and small.sum() == small[:, 4].sum() and not of_w.any()
    assert 0 < large.sum() == large[:, 6].sum() <= large[:, 6].numel() // 4


# --- operators --------------------------------------------------------------------------------------------------------
LARGE, SMALL, KERNEL, BIAS = torch.empty(2, 8, 6, 64), torch.empty(2, 4, 3, 32), torch.empty(32, 64, 4, 4), torch.empty
ARGUMENTS = {
    "down": {"large": LARGE, "w": KERNEL, "bias": BIAS(32), "rows": 1, "columns": 1},
    "up": {"small": SMALL, "w": KERNEL, "bias": BIAS(64), "height": 8, "width": 6, "rows": 1, "columns": 1},
    "weights": {"large": LARGE, "small": SMALL, "w": KERNEL, "rows": 1, "columns": 1},
    "same": {"x": LARGE, "w": KERNEL[..., :3, :3], "bias": BIAS(32), "turned": False, "rows": 1, "columns": 1},
    "same_weights": {"x": LARGE, "delta": torch.empty(2, 8, 6, 32), "w": KERNEL[..., :3, :3], "rows": 1, "columns": 1},
}
IMAGES, CHANNELS = "must be contiguous .* of float32 on the CPU", "has other channels than w"
WRONG = {
    "large in double precision": ("down weights", {"large": LARGE.double()}, f"large {IMAGES}"),
    "small in double precision": ("up weights", {"small": SMALL.double()}, f"small {IMAGES}"),
    "large of every second row": ("down weights", {"large": torch.empty(2, 16, 6, 64)[:, ::2]}, f"large {IMAGES}"),
    "small turned": ("up weights", {"small": torch.empty(2, 3, 4, 32).transpose(1, 2)}, f"small {IMAGES}"),
    "large of three dimensions": ("down weights", {"large": LARGE[0]}, f"large {IMAGES}"),
    "large of half the channels": ("down weights", {"large": LARGE[..., :32].clone()}, f"large {CHANNELS}"),
    "small of twice the channels": ("up weights", {"small": torch.empty(2, 4, 3, 64)}, f"small {CHANNELS}"),
    "w in double precision": ("down up weights", {"w": KERNEL.double()}, "w must be"),
    "w of another dtype": ("down up weights", {"w": KERNEL.bfloat16()}, "w must be .* of float32"),
    "w of 2×2": ("down up weights", {"w": KERNEL[..., :2, :2]}, "w must be"),
    "w of 4×3": ("down up weights", {"w": KERNEL[..., :3]}, "w must be"),
    "w of 48 channels": ("down up weights", {"w": torch.empty(32, 48, 4, 4)}, "multiples of 32"),
    "w of no channels": ("down up weights", {"w": torch.empty(0, 64, 4, 4)}, "w must be"),
    "a bias of other channels": ("down up", {"bias": BIAS(96)}, r"bias must be contiguous \[(32|64)\]"),
    "a bias in double precision": ("down up", {"bias": BIAS(32).double()}, "bias must be"),
    "every second of a bias": ("down up", {"bias": BIAS(128)[::2]}, "bias must be contiguous"),
    "no pixel left": ("down", {"large": torch.empty(2, 8, 1, 64)}, "no pixel is left"),
    "no row": ("up", {"height": 0}, "no pixel is left"),
    "less than no column": ("up", {"width": -2}, "no pixel is left"),
    "padding below zero": ("down up weights", {"rows": -1}, ""),
    "other batches": ("weights", {"small": torch.empty(3, 4, 3, 32)}, "batches differ"),
    "other batches at stride 1": ("same_weights", {"delta": torch.empty(3, 8, 6, 32)}, "batches differ"),
    "a bias of another dtype": ("down up", {"bias": BIAS(32).bfloat16()}, "bias must be"),
    "bfloat16 at stride 1": ("same", {"x": LARGE.bfloat16(), "w": KERNEL[..., :3, :3].bfloat16()}, "of float32"),
    "bfloat16": ("down", {"large": LARGE.bfloat16(), "w": KERNEL.bfloat16()}, "of float32"),
    "4×4 at stride 1": ("same same_weights", {"w": KERNEL}, "w must be"),
    "turned, and of other channels": ("same", {"turned": True}, CHANNELS),
    "no pixel left at stride 1": ("same", {"x": torch.empty(2, 8, 2, 64), "columns": 0}, "no pixel is left"),
}


@pytest.mark.parametrize(("names", "changed", "said"), WRONG.values(), ids=WRONG)
def test_errors(names, changed, said):
    for name in names.split():
        with pytest.raises(RuntimeError, match=f"winograd_{name}: .*{said}"):
            getattr(operators, f"winograd_{name}")(*(ARGUMENTS[name] | changed).values())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_opcheck(name):
    operator = getattr(operators, f"winograd_{name}")
    drawn = {key: torch.randn_like(t) if isinstance(t, torch.Tensor) else t for key, t in ARGUMENTS[name].items()}
    torch.library.opcheck(operator, tuple(drawn.values()))
    others = {"bias": None} if "bias" in drawn else {}
    torch.library.opcheck(operator, tuple((drawn | others | {"w": last(drawn["w"]), "rows": 0}).values()))
