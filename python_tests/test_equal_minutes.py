"""examples/equal_minutes.py, shortened: two ways of the same training, and what is told of them."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from wgan_kernels.training import data
from wgan_kernels.training.config import Config

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("ot", reason="the judges need POT")


@pytest.fixture
def example(example, monkeypatch):
    """The script as a module, which trains in this process."""
    module = example("equal_minutes")
    monkeypatch.setattr(module, "apart", lambda way, config, advance: module.whole(way, config))
    return module


def test_the_ways_train_alike(example):
    """In float32, but for rounding; only the plain one by the formulas."""
    few = data.embedded()
    few = data.Images(few.images[:256], few.labels[:256])
    settings = replace(Config(device="cpu", batch_size=8, n_critic=2), precision="float32").resolved()
    plain, ours = example.Plain(settings, few), example.Timed(settings, few)
    assert all(param.is_contiguous() for param in (*plain.critic.parameters(), *plain.generator.parameters()))
    assert "reference" in type(plain.critic_step).__module__ and "reference" not in type(ours.critic_step).__module__
    for share in (0.0, 0.5):
        plain.share = ours.share = share
        plain.iterate()
        ours.iterate()
        for one in (plain, ours):
            assert {group["lr"] for group in one.critic_optimizer.param_groups} == {settings.lr * (1 - share)}
    for name, of in ours.critic.state_dict().items():
        torch.testing.assert_close(of, plain.critic.state_dict()[name], rtol=1e-3, atol=2e-4)


def test_the_record(example, tmp_path):
    out = tmp_path / "equal.png"
    config = example.Config(out=out, device="cpu", minutes=0.02, points=2, samples=100, threads=1)
    measured = example.run(config)
    for of in measured["rows"].values():
        assert [row["seconds"] >= 0.6 * part for part, row in enumerate(of, 1)] == [True, True]
        assert of[0]["iteration"] <= of[1]["iteration"]
    plain, ours = (measured["rows"][way][-1]["fid"] for way in ("plain PyTorch", "steps"))
    (compared,) = [sentence for sentence in example.sentences(measured) if sentence.startswith("At the end")]
    assert f"is {ours / plain:.2f} times the plain loop's" in compared
    assert Image.open(out).size[0] > 1000 and out.with_suffix(".json").is_file()


@pytest.mark.parametrize("wrong", ["--minutes 0", "--points 0", "--samples 9", "--out x.txt", "--device nowhere"])
def test_wrong_arguments(example, tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.chdir(tmp_path)
    assert example.main(example.Config, None, "", wrong.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong.split()[0]}")
