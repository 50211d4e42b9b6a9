"""wgan_kernels.training.metrics: each figure against answers that are known without it."""

import math
import random

import numpy
import pytest
import torch

from wgan_kernels.training.metrics import correlation, modes, neighbours, transport
from wgan_kernels.training.metrics.fid import FeatureDistance

ot = pytest.importorskip("ot", reason="the Wasserstein distance needs POT")
pytestmark = pytest.mark.usefixtures("one_thread")


def points(count, dimensions=2, seed=1, dtype=torch.float32):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def turn(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


# --- transport ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 2, 784])
def test_w1_of_a_shift_is_its_length(dimensions):
    x = points(200, dimensions, dtype=torch.float64)
    v = points(1, dimensions, seed=2, dtype=torch.float64)
    assert transport.w1(x, x + v) == pytest.approx(v.norm().item(), rel=1e-9)


def test_w1_in_one_dimension_is_that_of_the_sorted_points():
    x, y = points(301, 1), 2 * points(301, 1, seed=2) + 1
    assert transport.w1(x, y) == pytest.approx((x.sort(0).values - y.sort(0).values).abs().mean().item(), rel=1e-5)


def test_w1_moves_half_of_the_earth():
    """Two points against one of them: half a unit of earth goes 5 far, whatever the numbers of points."""
    x, y = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(5, 2)
    assert transport.w1(x, y) == pytest.approx(2.5, rel=1e-12)


def test_w1_takes_the_straight_way_not_that_along_the_axes():
    assert transport.w1(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])) == pytest.approx(5.0, rel=1e-12)


def test_w1_of_equal_sets_is_0_in_many_dimensions():
    x = 30 * points(200, 784)  # far from 0, where float32 would cancel
    assert transport.w1(x, x[torch.randperm(200)]) < 1e-4


def test_w1_is_symmetric_and_turns_with_the_plane():
    x, y = points(150), 3 * points(150, seed=2)
    value = transport.w1(x, y)
    assert transport.w1(y, x) == pytest.approx(value, rel=1e-9)
    assert transport.w1(x @ turn(0.7), y @ turn(0.7)) == pytest.approx(value, rel=1e-5)
    assert transport.w1(7 * x, 7 * y) == pytest.approx(7 * value, rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3, 784])
def test_sliced_w_of_a_shift(dimensions):
    """Its closed form |v| E|θ₁|, θ uniform on the sphere, to four standard errors of a mean over the directions.

    E|θ₁| = Γ(d/2) / (√π Γ((d+1)/2)), E θ₁² = 1/d.
    """
    x, v = points(300, dimensions), points(1, dimensions, seed=2)
    theta = transport.directions(dimensions)
    value = transport.sliced_w(x @ theta, (x + v) @ theta)
    mean = math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(math.pi)
    error = math.sqrt((1 / dimensions - mean**2) / transport.DIRECTIONS)
    assert value / v.norm().item() == pytest.approx(mean, abs=4 * error)
    assert value == pytest.approx((v @ theta).abs().mean().item(), rel=1e-4)


@pytest.mark.parametrize("counts", [(200, 200), (200, 130)])
def test_sliced_w_is_pot_s(counts):
    x, y = points(counts[0], 5), 2 * points(counts[1], 5, seed=2) + 0.5
    theta = transport.directions(5)
    whole = ot.sliced_wasserstein_distance(x, y, projections=theta, p=1).item()
    assert transport.sliced_w(x @ theta, y @ theta) == pytest.approx(whole, rel=1e-6)


def test_sliced_w_is_at_most_w1():
    x, y = points(200), 3 * points(200, seed=2)
    theta = transport.directions(2)
    assert 0 < transport.sliced_w(x @ theta, y @ theta) <= transport.w1(x, y)


def test_directions_are_unit_vectors_all_around():
    theta = transport.directions(3)
    torch.testing.assert_close(theta.norm(dim=0), torch.ones(transport.DIRECTIONS))
    assert theta.mean(1).norm() < 4 / math.sqrt(transport.DIRECTIONS)
    assert torch.equal(theta, transport.directions(3))


def test_a_sketch_does_not_depend_on_the_batches():
    samples = points(2300, 12).view(2300, 3, 2, 2)
    whole, parts = transport.Sketch(transport.directions(12)), transport.Sketch(transport.directions(12))
    whole.add(samples)
    for batch in samples.split(700):
        parts.add(batch)
    assert torch.equal(parts.points, samples.flatten(1)[: transport.SOLVED])
    assert torch.equal(whole.points, parts.points)
    torch.testing.assert_close(whole.projections, parts.projections)
    assert parts.projections.shape == (2300, transport.DIRECTIONS)
    assert transport.distances(whole, parts) == pytest.approx({"w1": 0, "sliced_w": 0}, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sketch_refuses_what_is_not_finite(bad):
    samples = points(10)
    samples[3, 1] = bad
    with pytest.raises(ValueError, match=r"samples: .*finite"):
        transport.Sketch(transport.directions(2)).add(samples)


def test_no_one_else_s_random_numbers_are_drawn():
    before = torch.get_rng_state(), numpy.random.get_state()[1].tolist(), random.getstate()
    x, y = points(50), points(50, seed=2)
    theta = transport.directions(2)
    assert transport.w1(x, y) == transport.w1(x, y)
    assert transport.sliced_w(x @ theta, y @ theta) == transport.sliced_w(x @ theta, y @ theta)
    neighbours.precision_and_recall(x, y)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (numpy.random.get_state()[1].tolist(), random.getstate())


# --- precision and recall ----------------------------------------------------------------------------------------


def two_clouds(count, seed):
    return torch.cat([points(count, seed=seed), points(count, seed=seed + 1) + 100])


def test_a_set_is_as_precise_as_itself_and_recalls_itself():
    x = points(200, 64)
    assert neighbours.precision_and_recall(x, x) == (1.0, 1.0)


def test_sets_far_apart_have_neither():
    assert neighbours.precision_and_recall(points(200), points(200, seed=2) + 100) == (0.0, 0.0)


def test_a_missing_mode_costs_recall_alone():
    real = two_clouds(300, seed=1)
    whole = neighbours.precision_and_recall(real, two_clouds(300, seed=3))
    precision, recall = neighbours.precision_and_recall(real, torch.cat([points(300, seed=3), points(300, seed=5)]))
    assert min(whole) > 0.9
    assert precision > 0.9
    assert 0.45 < recall <= 0.5


def test_a_mode_that_is_not_real_costs_precision_alone():
    fake = two_clouds(300, seed=3)
    precision, recall = neighbours.precision_and_recall(torch.cat([points(300), points(300, seed=2)]), fake)
    assert 0.45 < precision <= 0.5
    assert recall > 0.9


def test_noise_around_the_data_is_not_precise():
    assert neighbours.precision_and_recall(points(500, 8), 10 * points(500, 8, seed=2))[0] < 0.02


def test_a_single_image_again_and_again_is_recalled_once():
    real = points(200)
    precision, recall = neighbours.precision_and_recall(real, real[:1].repeat(200, 1) + 1e-3)
    assert (precision, recall) == (1.0, 0.0)


def test_precision_and_recall_exchange_roles_and_turn_with_the_plane():
    x, y = points(200, 3)[:, :2], 2 * points(200, 3, seed=2)[:, :2] + 1
    precision, recall = neighbours.precision_and_recall(x, y)
    assert 0 < precision < recall < 1
    assert neighbours.precision_and_recall(y, x) == (recall, precision)
    moved = [5 * z @ turn(0.7) + 3 for z in (x, y)]
    assert neighbours.precision_and_recall(*moved) == pytest.approx((precision, recall), abs=0.01)


def test_radii_reach_to_the_third_nearest_other_point():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0], [15.0]])
    torch.testing.assert_close(neighbours.radii(line), torch.tensor([7.0, 6.0, 4.0, 7.0, 14.0]).double())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_points_than_neighbours(count):
    """The ball then reaches to the farthest other point; that of a single point, nowhere."""
    line = torch.arange(count, dtype=torch.float32)[:, None]
    expected = torch.maximum(line, count - 1 - line).squeeze(1).double()
    torch.testing.assert_close(neighbours.radii(line), expected)
    assert neighbours.precision_and_recall(line, line) == (1.0, 1.0)


# --- modes -------------------------------------------------------------------------------------------------------


def test_kl_of_even_shares_is_0_and_of_a_single_mode_log_k():
    for count in (1, 3, 8, 25):
        assert modes.kl_to_uniform(torch.full((count,), 7)) == pytest.approx(0, abs=1e-12)
        single = torch.zeros(count, dtype=torch.int64)
        single[-1] = 11
        assert modes.kl_to_uniform(single) == pytest.approx(math.log(count), rel=1e-12)


def test_kl_of_half_of_the_modes_is_log_2():
    assert modes.kl_to_uniform(torch.tensor([5, 0, 5, 0])) == pytest.approx(math.log(2), rel=1e-12)


def test_kl_by_hand():
    expected = 0.75 * math.log(4 * 0.75 / 2) + 0.25 * math.log(4 * 0.25 / 2)
    assert modes.kl_to_uniform(torch.tensor([3, 1])) == pytest.approx(expected, rel=1e-12)


def test_kl_of_nothing_is_the_worst():
    assert modes.kl_to_uniform(torch.zeros(10, dtype=torch.int64)) == math.log(10)


def test_a_mode_is_covered_from_a_tenth_of_its_share_on():
    """Of 1,000 samples and 10 modes: from 10 on, whatever the others do."""
    counts = torch.tensor([10, 9, 0, 500, 11, 0, 0, 0, 0, 1])
    assert modes.covered(counts, 1000) == 3
    assert modes.covered(counts, 990) == 3
    assert modes.covered(counts, 900) == 4


def test_few_samples_cover_no_mode_that_has_none():
    assert modes.covered(torch.tensor([1, 1, 0, 0]), 2) == 2
    assert modes.covered(torch.tensor([0, 0]), 1) == 0


def test_good_samples_count_for_their_nearest_mode():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = torch.tensor([[0.0, 0.0], [0.29, 0.0], [0.31, 0.0], [10.0, 0.25], [5.0, 5.0], [9.8, 0.2], [9.75, 0.25]])
    assert modes.good_per_mode(samples, centres, 0.1).tolist() == [2, 2, 0]


def test_the_share_of_good_samples_of_a_gaussian():
    """1 − e^(−9/2) in the plane, to four standard errors."""
    count, expected = 20_000, 1 - math.exp(-4.5)
    good = modes.good_per_mode(0.02 * points(count), torch.zeros(1, 2), 0.02).sum().item() / count
    assert good == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / count))


# --- FID, correlation --------------------------------------------------------------------------------------------


def test_fid_of_a_shift_is_its_square():
    """Equal covariances: ‖μ_r − μ_f‖² is left."""
    x = points(500, 16)
    assert FeatureDistance(x.split(100))((x + 0.5).split(100)) == pytest.approx(16 * 0.25, rel=1e-3)


def test_fid_of_a_stretch():
    """μ = 0: tr(Σ + s²Σ − 2sΣ) = (s − 1)² tr Σ."""
    x = points(500, 16)
    x -= x.mean(0)
    expected = 4 * x.T.cov().trace().item()
    assert FeatureDistance([x])([3 * x]) == pytest.approx(expected, rel=1e-3)


def test_fid_of_equal_sets_is_0():
    x = points(500, 16)
    assert 0 <= FeatureDistance([x])([x]) < 1e-3


def test_correlation_of_a_line():
    a = [1.0, 2.0, 4.0, 8.0]
    assert correlation(a, [3 * value + 1 for value in a]) == pytest.approx((1, 1), abs=1e-5)
    assert correlation(a, [-value for value in a]) == pytest.approx((-1, -1), abs=1e-5)


def test_correlation_against_scipy():
    from scipy import stats

    a, b = points(30).T.tolist()
    b[3] = b[4]  # a tie
    expected = stats.pearsonr(a, b).statistic, stats.spearmanr(a, b).statistic
    assert correlation(a, b) == pytest.approx(expected, abs=1e-5)


def test_only_the_order_counts_for_ranks():
    pearson, spearman = correlation([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 10.0, 1000.0])
    assert pearson < 0.9
    assert spearman == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("a, b", [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0])])
def test_correlation_with_a_constant_is_not_known(a, b):
    assert all(math.isnan(value) for value in correlation(a, b))
