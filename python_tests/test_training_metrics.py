"""wgan_kernels.training.metrics: the judges know real samples from others."""

import importlib.resources
import json
import math

import pytest
import torch

from wgan_kernels.training import data
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.metrics import judge_of
from wgan_kernels.training.metrics.digits import DigitJudge
from wgan_kernels.training.metrics.images import ImageJudge
from wgan_kernels.training.metrics.toys import ToyJudge
from wgan_kernels.training.models import digit_classifier

pytest.importorskip("ot", reason="the judges need POT")
# Two threads are twice as fast here, and ten times as slow where another process has one of two cores.
pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = tuple(range(10))


@pytest.fixture(scope="module")
def real():
    """4,000 digits: judged in half the time of all, and as good."""
    return first(data.embedded(), 4000)


@pytest.fixture(scope="module")
def judge(real, one_thread):
    return judge_of(real, "mnist", DIGITS)


def first(images, count):
    return data.Images(images.images[:count], images.labels[:count])


def batches(images):
    return [data.to_unit(part) for part in images.images.split(1000)]


def noise(count, *shape, seed=0):
    return (2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) - 1).split(500)


# --- digits ------------------------------------------------------------------------------------------------------


def test_the_classifier_reads_the_held_out_digits():
    real = data.embedded()
    classifier = digit_classifier.frozen_classifier()
    with torch.no_grad():
        decisions = torch.cat([classifier(images).argmax(1) for images in batches(real)])
    assert (decisions == real.labels).float().mean() >= 0.985
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_its_weights_are_small():
    path = importlib.resources.files("wgan_kernels.training") / digit_classifier.WEIGHTS
    assert len(path.read_bytes()) < 600_000


def test_real_digits_against_themselves(judge, real):
    verdict = judge(batches(real))
    assert verdict["fid"] < 1e-3
    assert verdict["confidence"] > 0.98
    shares = real.labels.bincount() / len(real)
    torch.testing.assert_close(torch.tensor(verdict["histogram"]), shares, atol=0.005, rtol=0)
    assert verdict["smallest_mode"] == min(verdict["histogram"])
    assert verdict["modes"] == 10
    assert verdict["kl"] < 0.005


def test_real_digits_that_the_judge_did_not_compare_with(judge):
    """One half of MNIST as the other half sees it."""
    verdict = judge.real
    assert verdict["fid"] < 0.1
    assert 0.85 < verdict["precision"] < 0.92  # 0.94 where half of them are known
    assert 0.85 < verdict["recall"] < 0.92  # 0.94 where half of them are known
    assert 11 < verdict["w1"] < 12.5
    assert verdict["sliced_w"] < 0.03


def test_noise_is_far_away(judge):
    verdict = judge(noise(2000, 1, 28, 28))
    assert verdict["fid"] > 100
    assert verdict["precision"] == verdict["recall"] == 0
    assert verdict["w1"] > 20
    assert verdict["sliced_w"] > 0.3


def test_a_missing_digit_is_seen(judge, real):
    verdict = judge(batches(first(real.only(range(9)), 2500)))
    assert verdict["smallest_mode"] < 0.01
    assert verdict["modes"] == 9
    assert verdict["kl"] == pytest.approx(math.log(10 / 9), abs=0.03)
    assert verdict["fid"] > 0.3
    assert verdict["precision"] > 0.85


def test_a_single_digit_is_precise_but_recalls_little(judge, real):
    verdict = judge(batches(real.only([1])))
    assert verdict["precision"] > 0.9
    assert verdict["recall"] < 0.2
    assert verdict["modes"] == 1
    assert verdict["kl"] == pytest.approx(math.log(10), abs=0.1)


def test_a_shift_in_brightness_has_its_length_as_w1(real):
    """The judge's own reference, every pixel 0.5 brighter: ‖v‖ = 0.5 · √784. POT pairs each with itself."""
    some = first(real, 400)
    judge = DigitJudge(some, DIGITS)
    shifted = judge.reference.points + 0.5
    assert len(shifted) == 200
    assert judge([shifted.view(-1, 1, 28, 28)])["w1"] == pytest.approx(0.5 * 28, rel=1e-5)


def test_a_verdict_forgets_the_one_before(judge, real):
    fakes = batches(first(real.only([1, 2]), 800))
    before = judge(fakes)
    judge(torch.zeros(100, 1, 28, 28).split(50))
    assert judge(fakes) == before


def test_another_judge_says_the_same_and_no_random_numbers_are_drawn(real):
    some, fakes = first(real, 600), batches(first(real, 300))
    state = torch.get_rng_state()
    assert DigitJudge(some, DIGITS)(fakes) == DigitJudge(some, DIGITS)(fakes)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_modes_are_those_trained_on(real):
    """Threes alone are all that is asked of a judge of threes; of a judge of 3 and 8 they are one mode of two."""
    threes = batches(first(real.only([3]), 300))
    verdict = judge_of(real.only([3]), "mnist", (3,))(threes)
    assert 0.97 < verdict["smallest_mode"] == verdict["histogram"][3] < 1  # of all samples, misread ones included
    assert (verdict["modes"], verdict["kl"]) == (1, 0)
    verdict = judge_of(real.only([3, 8]), "mnist", (3, 8))(threes)
    assert verdict["smallest_mode"] < 0.02
    assert verdict["modes"] == 1
    assert verdict["kl"] > 0.6


@pytest.mark.parametrize("count", [2, 3, 4])
def test_only_a_few_images(real, count):
    few = first(real, count)  # 7, 2, 1, 0
    labels = tuple(sorted(few.labels.tolist()))
    judge = judge_of(few, "mnist", labels)
    verdict = judge(batches(few))
    assert all(math.isfinite(value) for key, value in verdict.items() if key != "histogram")
    assert verdict["modes"] == count
    assert verdict["fid"] < 1e-3
    assert judge.words(verdict)["modes"].startswith(f"{count} (real: ")


def test_one_image_is_too_few(real):
    with pytest.raises(UsageError, match=r"--data, --digits: 1 image.*at least two"):
        judge_of(first(real, 1), "mnist", (7,))


def test_what_is_not_finite_is_refused(judge):
    with pytest.raises(ValueError, match="finite"):
        judge([torch.full((10, 1, 28, 28), math.nan)])


def test_a_verdict_survives_json_and_is_read_in_words(judge, real):
    verdict = judge(batches(first(real.only(range(9)), 500)))
    assert json.loads(json.dumps(verdict)) == verdict
    assert list(verdict) == [
        "fid", "confidence", "histogram", "smallest_mode", "precision", "recall", "modes", "kl", "w1", "sliced_w",
    ]  # fmt: skip
    words = judge.words(verdict)
    assert words["classifier-FID"].startswith(f"{verdict['fid']:.2f}")
    assert words["modes"] == "9 (real: 10)"
    assert words["digits generated"].count("%") == 10
    assert set(words.values()) == set(filter(None, words.values()))
    assert judge.headline == "fid"


# --- other images ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colours():
    """Gradients from one random colour to another: uint8 [600, 3, 8, 8]."""
    random = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 600, 3, 1, 1, generator=random)
    along = torch.linspace(0, 1, 8)
    images = (255 * (left * (1 - along) + right * along)).expand(-1, -1, 8, -1).round().to(torch.uint8)
    return data.Images(images.contiguous(), torch.zeros(600, dtype=torch.int64))


def test_images_have_both_distances_alone(colours):
    judge = judge_of(colours, "folder", ())
    assert isinstance(judge, ImageJudge)
    other = judge(noise(300, 3, 8, 8))
    assert list(other) == ["w1", "sliced_w"]
    for key in other:
        assert judge.real[key] < other[key] / 2
    assert judge.words(other)["W₁"] == f"{other['w1']:#.3g} (real: {judge.real['w1']:#.3g})"
    assert judge(noise(300, 3, 8, 8)) == other


def test_real_images_are_compared_with_others(colours):
    """The two halves have no image in common, and W₁ is taken between as many of both."""
    judge = ImageJudge(colours)
    assert len(judge.reference.points) == len(judge.held_out) == 300
    held_out = data.to_unit(colours.images[judge.held_out]).flatten(1)
    assert torch.cdist(held_out, judge.reference.points).min() > 0.05


def test_fashion_is_not_judged_as_digits(real):
    assert isinstance(judge_of(first(real, 100), "fashion-mnist", DIGITS), ImageJudge)


# --- toys --------------------------------------------------------------------------------------------------------


def toy(name):
    return data.load(name, None, 28)


def sample(name, count=5000, seed=7):
    return toy(name).sample(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name, count", [("8-gaussians", 8), ("25-gaussians", 25)])
def test_a_toy_s_own_samples_are_good_and_in_all_modes(name, count):
    judge = judge_of(toy(name), name, ())
    verdict = judge(sample(name).split(500))
    expected = 1 - math.exp(-4.5)
    assert verdict["good"] == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 5000))
    assert verdict["modes"] == count
    # 2 · 5,000 · KL is about χ² of count − 1 degrees of freedom: its mean and six of its standard deviations.
    assert verdict["kl"] < (count - 1 + 6 * math.sqrt(2 * (count - 1))) / 10_000
    assert verdict["w1"] < 0.2
    assert verdict["sliced_w"] < 0.06
    assert judge.words(verdict)["modes"] == f"{count} (real: {count})"
    assert judge.real["w1"] > 0.01  # by others, not by themselves


def test_a_collapsed_mode_is_seen():
    samples = sample("8-gaussians")
    alone = samples[(samples - torch.tensor([2 / 1.414, 0.0])).norm(dim=1) < 0.3]
    assert 500 < len(alone) < 750
    verdict = ToyJudge(toy("8-gaussians"))([alone])
    assert verdict["good"] > 0.97
    assert verdict["modes"] == 1
    assert verdict["kl"] == pytest.approx(math.log(8), rel=1e-9)
    assert verdict["w1"] > 1.5


def test_noise_all_over_the_plane_covers_no_mode():
    (everywhere,) = noise(500, 2)
    verdict = ToyJudge(toy("25-gaussians"))([1.5 * everywhere])
    assert verdict["good"] < 0.1
    assert verdict["modes"] < 5


def test_a_shifted_toy_has_the_shift_as_w1():
    judge = ToyJudge(toy("8-gaussians"))
    assert judge([judge.reference.points + torch.tensor([3.0, 4.0])])["w1"] == pytest.approx(5, rel=1e-6)


@pytest.mark.parametrize("name", ["swiss-roll", "parallel-lines"])
def test_a_toy_without_modes(name):
    judge = judge_of(toy(name), name, ())
    verdict = judge([sample(name)])
    assert list(verdict) == list(judge.real) == ["w1", "sliced_w"]
    assert verdict["w1"] < 0.15
    assert verdict["sliced_w"] < 0.05
    assert list(judge.words(verdict)) == ["W₁", "sliced W₁"]


def test_parallel_lines_are_their_distance_apart():
    """W₁ = |θ| for the lines at 0 and θ; between samples a little more, for these are not at equal heights."""
    theta = 0.5
    verdict = ToyJudge(toy("parallel-lines"))([sample("parallel-lines") + torch.tensor([theta, 0.0])])
    assert theta <= verdict["w1"] < theta + 0.01
