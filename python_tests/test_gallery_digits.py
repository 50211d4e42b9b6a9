"""The documents' experiments on MNIST, shortened, on small batches: what is told of a run is what happened in it."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from test_gallery import OF_DIGITS, assert_drawn
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from wgan_kernels.training import data, presets, report
from wgan_kernels.training.metrics import judge_of

DIGITS = 1000


@pytest.fixture
def example(example, monkeypatch):
    """name → the script as a module, on the first 1,000 digits; presets in batches of 8, by the smallest generator."""
    few = data.embedded()
    few = data.Images(few.images[:DIGITS], few.labels[:DIGITS])
    monkeypatch.setattr(example("digits"), "load", lambda name: few)
    small = {"batch_size": 8, "generator_batch_size": None, "generator": "compact"}
    for table in (presets.COMPACT, presets.PRESETS):
        for name, preset in table.items():
            monkeypatch.setitem(table, name, replace(preset, **small))
    return example


def ranks(values):
    return torch.tensor(values).argsort().argsort().double()


def pearson(x, y):
    return torch.corrcoef(torch.stack([torch.as_tensor(x).double(), torch.as_tensor(y).double()]))[0, 1].item()


def test_quality_curve(example, tmp_path):
    """Of WGAN-GP the estimate falls with the FID even in so short a run; correlations are those of the rows."""
    module = example("quality_curve")
    out = tmp_path / "quality.png"
    measured = module.run(module.Config(out=out, iterations=16, points=4, samples=100))
    rows = measured["rows"]
    assert {method: [row["iteration"] for row in of] for method, of in rows.items()} == {
        "WGAN": [6, 12, 18, 24],
        "WGAN-GP": [4, 8, 12, 16],
        "GAN": [12, 24, 36, 48],
    }
    assert rows["WGAN-GP"][-1]["curve"] < 0.8 * rows["WGAN-GP"][0]["curve"]
    assert rows["WGAN-GP"][-1]["fid"] < 0.8 * rows["WGAN-GP"][0]["fid"]
    assert rows["WGAN"][-1]["slope"] > rows["WGAN"][0]["slope"]  # the clipped critic still gains slope
    for method, of in rows.items():
        curve, fid, w1 = ([row[name] for row in of] for name in ("curve", "fid", "w1"))
        found = measured["correlations"][method]["curve"]
        assert found["FID"] == pytest.approx((pearson(curve, fid), pearson(ranks(curve), ranks(fid))), abs=1e-5)
        assert found["W₁"] == pytest.approx((pearson(curve, w1), pearson(ranks(curve), ranks(w1))), abs=1e-5)
        assert found["FID, second half"][0] == pytest.approx(math.copysign(1, pearson(curve[2:], fid[2:])))
        assert ("slope" in of[0]) == ("estimate ÷ slope" in measured["correlations"][method]) == (method != "GAN")
    assert_drawn(out, measured)


@pytest.mark.parametrize("method", ["WGAN", "WGAN-GP"])
def test_the_curve_is_the_critic_s_estimate(example, method):
    """As CriticStep says it of the iteration's last update."""
    module = example("quality_curve")
    config = module.Config(iterations=4, points=4)
    trained = module.trainer_of(method, config, module.all_digits(config))
    step, seen = trained.critic_step, []
    trained.critic_step = lambda *batches: seen.append(step(*batches)) or seen[-1]
    losses = trained.iterate()
    assert len(seen) == 5
    curve = module.curve(method, losses, trained.config.penalty_weight)
    torch.testing.assert_close(curve, seen[-1]["wasserstein"], rtol=1e-4, atol=1e-5)


def test_a_point_has_the_mean_since_the_last(example, monkeypatch):
    module = example("quality_curve")
    config = module.Config(iterations=3, points=4, samples=100)  # of the GAN 9: 2, 4, 7 and 9
    values = iter(range(100))
    monkeypatch.setattr(module, "curve", lambda *_: torch.tensor(float(next(values))))
    judge = lambda samples: dict.fromkeys(module.KEPT, float(sum(map(len, samples))))  # noqa: E731
    rows, samples = module.follow("GAN", config, module.all_digits(config), judge, lambda label: None)
    assert [row["curve"] for row in rows] == [0.5, 2.5, 5.0, 7.5]
    assert rows[0]["fid"] == 100 and samples.shape == (module.ROWS * module.SHOWN, 1, 28, 28)


def test_the_gan_s_updates(example):
    """Both losses are cross-entropies, taken before their updates, which lower them; one of each makes an iteration."""
    module = example("quality_curve")
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    real, latent = torch.randn(64, 2) + 2, torch.randn(64, 3)
    of_discriminator = module.DiscriminatorStep(discriminator, 1e-2)
    of_generator = module.GanGeneratorStep(generator, discriminator, 1e-2)

    def cross_entropy(samples, label):
        logits = discriminator(samples)
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, label)).detach()

    before = generator.weight.clone()
    expected = cross_entropy(real, 1.0) + cross_entropy(of_generator.sample(latent), 0.0)
    first = of_discriminator(real, of_generator.sample(latent))["loss"]
    torch.testing.assert_close(first, expected)
    for _ in range(50):
        last = of_discriminator(real, of_generator.sample(latent))["loss"]
    assert last < 0.5 * first and torch.equal(generator.weight, before)

    kept = [param.clone() for param in discriminator.parameters()]
    expected = cross_entropy(of_generator.sample(latent), 1.0)
    torch.testing.assert_close(of_generator(latent)["loss"], expected)
    assert cross_entropy(of_generator.sample(latent), 1.0) < expected
    assert all(map(torch.equal, kept, discriminator.parameters()))

    config = module.Config(iterations=4, points=4)
    trained = module.trainer_of("GAN", config, module.all_digits(config))
    step, calls = trained.critic_step, []
    trained.critic_step = lambda *batches: calls.append(1) or step(*batches)
    losses = trained.iterate()
    assert len(calls) == 1 and module.curve("GAN", losses, 10.0) is losses["generator"]


def test_the_quotient_forgets_the_critic_s_scale(example):
    """Of the critic that is the direction from fake to real: its estimate over its slope is how far apart they are."""
    module = example("quality_curve")
    real, fake = torch.zeros(16, 1, 2, 2), torch.zeros(16, 1, 2, 2)
    real[:, 0, 0, 0] = 3.0
    for scale in (1.0, 10.0):
        found = module.over_slope(lambda images, scale=scale: scale * images.flatten(1)[:, 0], real, fake, 8)
        assert found == pytest.approx({"estimate": 3 * scale, "slope": scale, "estimate ÷ slope": 3.0})


def test_wgan_and_wgan_gp(example, tmp_path):
    module = example("wgan_and_wgan_gp")
    out = tmp_path / "both.png"
    measured = module.run(module.Config(out=out, iterations=4, points=3, samples=100))
    for of in measured["rows"].values():
        assert [row["iteration"] for row in of] == [1, 3, 4]
        assert 0 < of[0]["seconds"] < of[1]["seconds"] < of[2]["seconds"]
    assert measured["rows"]["WGAN"][-1]["fid"] != measured["rows"]["WGAN-GP"][-1]["fid"]
    assert_drawn(out, measured)


def test_the_post_s_own_lengths(example):
    module = example("wgan_and_wgan_gp")
    assert [module.Config(full=True).length(method) for method in module.METHODS] == [4000, 1000]
    assert [module.Config(iterations=7).length(method) for method in module.METHODS] == [7, 7]


@pytest.mark.parametrize("wgan, reached", [(50.0, "iteration 2, after 4 s"), (5.0, None)])
def test_how_the_two_are_compared(example, wgan, reached):
    """By the last FID of each, and by when WGAN-GP had reached WGAN's, if it did."""
    rows = {
        method: [
            {"iteration": step, "seconds": 2.0 * step, "fid": fid, "confidence": 0.5, "modes": 9, "w1": 14.0}
            for step, fid in enumerate(fids, 1)
        ]
        for method, fids in {"WGAN": [90.0, 70.0, wgan], "WGAN-GP": [80.0, 40.0, 10.0]}.items()
    }
    told = example("wgan_and_wgan_gp").sentences({"rows": rows, "real digits": rows["WGAN"][0]})
    assert told[0].startswith(f"WGAN, 3 iterations in 6 s (2.00 s each): classifier-FID {wgan:.1f} (after 1: 90.0)")
    assert f"is {10 / wgan:.3g} times that of WGAN" in told[-1]
    assert (reached in told[-1]) if reached else "reached" not in told[-1]


def test_one_digit(example, tmp_path):
    """It alone is learned; the critic tells real from generated better and better; the film has every grid."""
    module = example("one_digit")
    out = tmp_path / "six.png"
    config = module.Config(out=out, digit=6, iterations=10, points=2, samples=100)
    measured = module.run(config)
    few = example("digits").load("mnist")
    assert measured["count"] == int((few.labels == 6).sum()) < DIGITS / 5
    assert [row["iteration"] for row in measured["rows"]] == [5, 10]
    assert [row["iteration"] for row in measured["losses"]] == list(range(1, 11))
    estimates = [row["estimate"] for row in measured["losses"]]
    assert estimates[-1] > 2 * estimates[0] > 0
    assert measured["real digits"]["share"] > 0.95
    with Image.open(out.with_suffix(".gif")) as film:
        side = module.SIDE * 29 - 1
        assert (film.n_frames, film.size) == (11, (side, side))
        film.seek(10)
        assert film.info["duration"] == module.LAST_FRAME_MS
    assert_drawn(out, measured)


def test_the_three_losses(example):
    """Means over the updates of f times the label, taken before each update, since the last row."""
    module = example("one_digit")
    config = module.Config(digit=6)
    digits = module.all_digits(config).only((6,))
    trained = module.trainer(presets.PRESETS["s0"], config, digits, 4, digits=(6,))
    step, seen = trained.critic_step, []

    def watched(real, fake):
        with torch.no_grad():
            before = -trained.critic(real).mean()
        found = step(real, fake)
        torch.testing.assert_close(found["real"], before)
        seen.append([found["real"].item(), found["fake"].item()])
        return found

    trained.critic_step = watched
    losses = module.Losses(trained)
    made = []
    for _ in range(2):
        made.append(trained.iterate()["generator"])
        losses.generator.append(made[-1])
    losses.row(2)
    assert len(seen) == 10
    real, fake = torch.tensor(seen).mean(0).tolist()
    expected = {"iteration": 2, "critic on real": real, "critic on fake": fake, "generator": sum(made).item() / 2}
    expected["estimate"] = -real - fake
    assert losses.rows == [pytest.approx(expected, rel=1e-5)]
    trained.iterate()
    assert len(losses.updates) == 5


def test_samples_have_the_statistics_of_the_present_weights(example):
    """So that they are as those of training, which goes on as if none had been taken."""
    module, options = example("digits"), example("one_digit").Config()
    digits = module.all_digits(options)
    preset = replace(presets.PRESETS["s3-wgan-gp"], generator="s0", lr=1e-3)  # of momentum 0.01
    looked, other = (module.trainer(preset, options, digits, 4) for _ in range(2))
    latent = module.noise(96, preset.latent, options)
    for _ in range(2):
        looked.iterate()
        other.iterate()
        found = torch.cat(module.sampled(looked, latent))
    for ours, theirs in zip(looked.generator.state_dict().values(), other.generator.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    (lagging,) = other.sample(latent)
    with torch.no_grad():
        now = torch.cat([other.generator(part) for part in latent.split(64)])  # in training mode
    assert (found - now).abs().mean() < 0.3 * (lagging - now).abs().mean()


def test_the_share_is_that_of_the_digit(example, monkeypatch, tmp_path):
    """A generator that draws real sixes: the classifier takes them for sixes."""
    module = example("one_digit")
    sixes = example("digits").load("mnist").only((6,))
    real = data.to_unit(sixes.images).repeat(2, 1, 1, 1)
    monkeypatch.setattr(module, "sampled", lambda trainer, latent: [real[: len(latent)]])
    measured = module.run(module.Config(out=tmp_path / "x.png", digit=6, iterations=1, points=1, samples=100))
    verdict = judge_of(sixes, "mnist", (6,))([real[:100]])
    assert measured["rows"][0]["share"] == verdict["histogram"][6] > 0.95
    assert measured["rows"][0]["fid"] == pytest.approx(verdict["fid"], abs=1e-3)
    assert f"takes {verdict['histogram'][6]:.1%} of the samples for a 6" in (tmp_path / "x.json").read_text()
    with Image.open(tmp_path / "x.gif") as film:
        shown = torch.tensor(list(film.convert("L").tobytes())).reshape(289, 289)
    assert (shown - report.grid(real[:100], 10, 1).int()).abs().max() < 32  # of 256 greys the film has 16


def test_the_notebook_s_lengths(example):
    module = example("one_digit")
    assert {digit: module.Config(digit=digit, full=True).length for digit in (3, 4, 6)} == {3: 3500, 4: 3500, 6: 8000}
    assert module.Config(iterations=9).length == 9


def test_a_run_has_the_preset_s_settings(example):
    """All but its length, its seed and its place."""
    module = example("digits")
    options = example("one_digit").Config(seed=3, device="cpu")
    preset = presets.PRESETS["s3-wgan"]
    config = module.trainer(preset, options, module.all_digits(options), 17).config
    assert config == replace(preset, iterations=17, seed=3, device="cpu", out=config.out)


def test_even_steps(example):
    module = example("digits")
    assert module.even_steps(10, 4) == [2, 5, 8, 10]
    assert module.even_steps(5, 5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", OF_DIGITS)
@pytest.mark.parametrize(
    "wrong",
    ["--out missing/x.png", "--out x.txt", "--iterations 3", "--points 0", "--samples 9", "--threads 0",
     "--device nowhere"],
)  # fmt: skip
def test_wrong_arguments(example, tmp_path, monkeypatch, capsys, name, wrong):
    monkeypatch.chdir(tmp_path)
    module = example(name)
    assert module.main(module.Config, None, "", wrong.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong.split()[0]}")
    assert not list(tmp_path.iterdir())


def test_a_wrong_rate_of_the_gan(example, capsys):
    module = example("quality_curve")
    assert module.main(module.Config, None, "", ["--gan-lr", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --gan-lr 0")


def test_a_digit_that_the_notebook_does_not_have(example, capsys):
    module = example("one_digit")
    with pytest.raises(SystemExit, match="2"):
        module.main(module.Config, None, "", ["--digit", "5"])
    assert "--digit" in capsys.readouterr().err
