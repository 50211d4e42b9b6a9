"""wgan_kernels.training.data.toys: the distributions in the plane have the moments that their formulas say."""

import math

import pytest
import torch

from wgan_kernels.training import data

TOYS = data.DATASETS[-4:]
MODES = {"8-gaussians": 8, "25-gaussians": 25}
COUNT = 200_000


def drawn(name: str, count: int = COUNT, seed: int = 0) -> torch.Tensor:
    return data.load(name).sample(count, torch.Generator().manual_seed(seed))


def test_the_toys_are_the_last_four():
    assert TOYS == ("8-gaussians", "25-gaussians", "swiss-roll", "parallel-lines")


# By hand, of the formulas. 8 gaussians: 2 (E cos² = 1/2) and the noise, over 1.414². 25: of i in −2 … 2, 4 E i² = 8.
# Swiss roll: t on [a, b] = [1.5π, 4.5π], ∫ t cos t = [t sin t + cos t] = 6π and ∫ t sin t = [sin t − t cos t] = 2;
# ∫ t² cos² t = [t³/6 + t² sin 2t/4 + t cos 2t/4 − sin 2t/8], ∫ t² sin² t = t³/3 less that.
A, B = 1.5 * math.pi, 4.5 * math.pi
SQUARE = (B**3 - A**3) / 6
ROLL_X, ROLL_Y = 6 * math.pi / (B - A), 2 / (B - A)
VARIANCE_X = (SQUARE - (B - A) / 4) / (B - A) - ROLL_X**2 + 0.25**2
VARIANCE_Y = (SQUARE + (B - A) / 4) / (B - A) - ROLL_Y**2 + 0.25**2
MOMENTS = {
    "8-gaussians": ((0, 0), ((2 + 0.02**2) / 1.414**2,) * 2),
    "25-gaussians": ((0, 0), ((8 + 0.05**2) / 2.828**2,) * 2),
    "swiss-roll": ((ROLL_X / 7.5, ROLL_Y / 7.5), (VARIANCE_X / 7.5**2, VARIANCE_Y / 7.5**2)),
    "parallel-lines": ((0, 1 / 2), (0, 1 / 12)),
}


@pytest.mark.parametrize("name", TOYS)
def test_means_and_variances(name):
    means, variances = map(torch.tensor, MOMENTS[name])
    points = drawn(name)
    # Standard errors are at most 1/√200,000 = 0.0022, and 0.0032 of a variance of 1: four of them.
    torch.testing.assert_close(points.mean(0), means.float(), atol=0.009, rtol=0)
    torch.testing.assert_close(points.var(0), variances.float(), atol=0.013, rtol=0)


@pytest.mark.parametrize("name", MODES)
def test_gaussians_lie_around_their_modes_in_equal_shares(name):
    toy, points = data.load(name), drawn(name)
    assert toy.modes.shape == (MODES[name], 2)
    distances = torch.cdist(points, toy.modes)
    nearest, mode = distances.min(1)
    share = COUNT / MODES[name]
    assert (mode.bincount(minlength=MODES[name]) - share).abs().max() < 5 * math.sqrt(share)
    assert nearest.max() < 6 * toy.spread  # P(‖n‖ > 6) = exp(−18): 0.003 of 200,000
    offset = (points - toy.modes[mode]) / toy.spread
    torch.testing.assert_close(offset.mean(0), torch.zeros(2), atol=0.009, rtol=0)
    torch.testing.assert_close(offset.T.cov(), torch.eye(2), atol=0.013, rtol=0)


def test_modes_are_where_the_paper_puts_them():
    root = math.sqrt(2)
    circle = {(2, 0), (-2, 0), (0, 2), (0, -2), (root, root), (root, -root), (-root, root), (-root, -root)}
    grid = {(2 * i, 2 * j) for i in range(-2, 3) for j in range(-2, 3)}
    for name, scale, spread, expected in (("8-gaussians", 1.414, 0.02, circle), ("25-gaussians", 2.828, 0.05, grid)):
        toy = data.load(name)
        assert toy.spread == pytest.approx(spread / scale)
        gaps = torch.cdist(toy.modes * scale, torch.tensor(sorted(expected), dtype=torch.float32))
        assert gaps.min(0).values.max() < 1e-5
        assert gaps.min(1).values.max() < 1e-5


def test_the_swiss_roll_winds_one_and_a_half_times():
    """Radius and angle are the same number t ∈ [1.5π, 4.5π), up to the noise and whole turns."""
    points = 7.5 * drawn("swiss-roll")
    radius = points.norm(dim=1)
    assert 1.5 * math.pi - 1.5 < radius.min() < 1.5 * math.pi
    assert 4.5 * math.pi < radius.max() < 4.5 * math.pi + 1.5
    turns = (radius - torch.atan2(points[:, 1], points[:, 0])) / (2 * math.pi)
    off = radius * 2 * math.pi * (turns - turns.round()) / (1 + radius**2).sqrt()  # at right angles to the roll
    assert off.std() == pytest.approx(0.25, abs=0.005)
    for turn, share in ((2.5, 1 / 3), (3.5, 2 / 3)):
        assert (radius < turn * math.pi).float().mean() == pytest.approx(share, abs=0.005)


def test_the_parallel_line_is_half_open_and_even():
    x, y = drawn("parallel-lines").T
    assert torch.equal(x, torch.zeros(COUNT))
    assert y.min() >= 0
    assert y.max() < 1
    assert (torch.histc(y, 10, 0, 1) - COUNT / 10).abs().max() < 5 * math.sqrt(COUNT / 10)


@pytest.mark.parametrize("name", TOYS)
def test_the_generator_decides_all(name):
    points = drawn(name, 50)
    assert points.shape == (50, 2)
    assert points.dtype == torch.float32
    torch.rand(3)  # the global generator has no part in it
    assert torch.equal(points, drawn(name, 50))
    assert not torch.equal(points, drawn(name, 50, seed=1))
    generator = torch.Generator().manual_seed(0)
    toy = data.load(name)
    assert not torch.equal(toy.sample(50, generator), toy.sample(50, generator))


@pytest.mark.parametrize("name", TOYS)
def test_points_are_float32_whatever_the_default(name):
    torch.set_default_dtype(torch.float64)
    try:
        points = drawn(name, 5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert points.dtype == torch.float32
    assert torch.equal(points, drawn(name, 5))


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_is_its_own_shard_on_every_device(name):
    toy = data.load(name)
    assert toy.name == toy.fingerprint() == name
    assert toy.shape == (2,)
    assert toy.to("cpu") is toy
    assert toy.shard(1, 3) is toy
    assert (toy.modes is None) == (toy.spread is None) == (name not in MODES)
