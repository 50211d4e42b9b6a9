"""wgan_kernels.training.metrics: the judge knows real digits from noise."""

import pytest
import torch

from wgan_kernels.training import data
from wgan_kernels.training.metrics import Judge, Verdict
from wgan_kernels.training.models import digit_classifier


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads are twice as fast here, and ten times as slow where another process has one of two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def real():
    return data.embedded()


@pytest.fixture(scope="module")
def judge(real):
    return Judge(real)


def batches(digits):
    return [data.to_unit(images) for images in digits.images.split(1000)]


def test_the_classifier_reads_the_held_out_digits(real):
    classifier = digit_classifier.frozen_classifier()
    with torch.no_grad():
        decisions = torch.cat([classifier(images).argmax(1) for images in batches(real)])
    assert (decisions == real.labels).float().mean() >= 0.985
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_its_weights_are_small():
    path = data.resources.files("wgan_kernels.training") / digit_classifier.WEIGHTS
    assert len(path.read_bytes()) < 600_000


def test_real_digits_against_themselves(judge, real):
    verdict = judge(batches(real))
    assert verdict.fid < 1e-3
    assert verdict.confidence > 0.98
    shares = real.labels.bincount() / len(real)
    torch.testing.assert_close(torch.tensor(verdict.histogram), shares, atol=0.005, rtol=0)


def test_half_of_the_real_digits_against_all(judge, real):
    half = data.Digits(real.images[::2], real.labels[::2])
    assert judge(batches(half)).fid < 0.1


def test_noise_is_far_away(judge):
    noise = torch.rand(2000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert judge(noise.split(500)).fid > 100


def test_a_missing_digit_is_seen(judge, real):
    verdict = judge(batches(real.only(range(9))))
    assert verdict.smallest_mode(range(10)) < 0.01
    assert verdict.smallest_mode(range(9)) > 0.08
    assert verdict.fid > 0.3


def test_a_verdict_forgets_the_one_before(judge, real):
    before = judge(batches(real.only([1, 2])))
    judge(torch.zeros(100, 1, 28, 28).split(50))
    assert judge(batches(real.only([1, 2]))) == before


def test_smallest_mode_looks_at_the_digits_asked_for():
    verdict = Verdict(fid=0.0, confidence=1.0, histogram=(0.5, 0.0, 0.4, 0.1, 0, 0, 0, 0, 0, 0))
    assert verdict.smallest_mode([0, 2, 3]) == 0.1
    assert verdict.smallest_mode([0, 1]) == 0.0
