"""The documents' experiments in the plane, shortened: clipped weights, gradients through depth, covered modes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_gallery import assert_drawn
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from wgan_kernels.training.data import load

pytest.importorskip("ot", reason="the Wasserstein distance needs POT")

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_clipping(example, tmp_path, monkeypatch):
    """Small c: gradients vanish with depth, and nothing is learned there; penalties keep them."""
    module = example("clipping")
    monkeypatch.setattr(module, "HELD_OUT", 300)
    monkeypatch.setattr(module, "LOOKS", 6)
    out = tmp_path / "clipping.png"
    measured = module.run(module.Config(out=out, steps=60, width=64, lr=5e-3))
    ratios = {way: norms[0] / norms[-1] for way, norms in measured["through depth"].items()}
    assert all(len(norms) == module.DEEP + 1 for norms in measured["through depth"].values())
    assert ratios["c = 0.001"] < 1e-20 and ratios["c = 0.01"] < 1e-10 and ratios["c = 1"] > 2
    assert all(0.01 < ratios[way] < 100 for way in (module.TWO_SIDED, module.ONE_SIDED))
    exact = measured["W₁"]["swiss-roll"]
    assert 0.4 < exact < 0.9
    deep, shallow = measured["rows"]["deep"], measured["rows"]["shallow"]
    for rows in (*deep.values(), *shallow.values()):
        assert rows[0]["update"] == 1 and rows[-1]["update"] == 60
        assert all(abs(row["over slope"]) < 1.05 * exact for row in rows)  # no more than W₁, but for what is sampled
    assert deep["c = 0.001"][-1]["over slope"] == pytest.approx(deep["c = 0.001"][0]["over slope"], abs=1e-6)
    for way, rows in shallow.items():
        least = 0.1 if way in module.CLIPS else 0.25
        assert rows[-1]["over slope"] > max(least * exact, rows[0]["over slope"]), way
    assert shallow["c = 0.001"][-1]["value"] < 1e-4 * exact < exact < shallow["c = 1"][-1]["value"]
    assert shallow["c = 0.001"][0]["at limit"] > 0.9 and shallow["c = 1"][-1]["at limit"] < 0.01
    assert set(measured["ends"]) == set(module.TOYS)
    assert_drawn(out, measured)


def test_clipped_training_is_that_of_the_paper(example):
    """RMSprop, and then a clamp of every parameter, against torch's own."""
    module = example("clipping")
    config = module.Config(steps=10, batch_size=32, width=16, clip_lr=1e-3)
    ours, theirs = (torch.manual_seed(0) and config.critic(module.SHALLOW) for _ in range(2))
    samples = [module.Samples(load("8-gaussians"), 0) for _ in range(2)]
    assert list(module.train_clipped(ours, 0.02, samples[0], config)) == list(range(1, 11))
    optimizer = torch.optim.RMSprop(theirs.parameters(), lr=1e-3)
    for _ in range(10):
        real, fake = samples[1](32)
        optimizer.zero_grad()
        (theirs(fake).mean() - theirs(real).mean()).backward()
        optimizer.step()
        with torch.no_grad():
            for param in theirs.parameters():
                param.clamp_(-0.02, 0.02)
    for param, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-3, atol=1e-5)
    assert module.weights(ours).abs().max() <= torch.tensor(0.02)
    assert 0.2 < module.at_limit(ours, 0.02) < 1 and module.at_limit(ours, 0.03) == 0


def test_the_generator_is_the_data_and_noise(example):
    real, fake = example("clipping").Samples(load("swiss-roll"), 0)(20_000)
    torch.testing.assert_close(fake.var(0), real.var(0) + 1, rtol=0.05, atol=0)
    assert abs((real * (fake - fake.mean(0))).mean()) < 0.02  # of other points of the data


def test_estimate_and_depth_of_known_critics(example):
    """Of a linear critic, whose slope is everywhere the same; of layers that double."""
    module = example("clipping")
    line = nn.Linear(2, 1)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[3.0, 4.0]]) * 1e-12)
        line.bias.zero_()
    real, fake = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert module.estimate(line, real, fake) == pytest.approx((2e-12, 5e-12), rel=1e-5, abs=0)
    doubling = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    for layer in doubling[::2]:
        nn.init.zeros_(layer.bias)
        nn.init.eye_(layer.weight)
        layer.weight.data.mul_(2)
    assert module.through_depth(doubling, torch.tensor([[1.0, 1.0], [2.0, 2.0]])) == [8.0, 4.0, 2.0]
    assert doubling[0].weight.dtype == torch.float32


def test_when_half_is_found(example):
    rows = [{"update": 1, "over slope": 0.1}, {"update": 9, "over slope": 0.4}, {"update": 12, "over slope": 0.5}]
    assert example("clipping")._first(rows, 0.4) == 9
    assert example("clipping")._first(rows, 0.6) == "never"


def test_value_surfaces(example):
    """Rows go upwards, columns to the right, from 0 to 1 whatever the critic's scale."""
    module = example("plane")
    for scale in (1.0, 1e-30, -1e20):
        heights = module.values(lambda points, scale=scale: scale * points[:, 1:] + 7 * scale)
        expected = torch.linspace(0, 1, module.SIDE).double()[:, None].expand(module.SIDE, module.SIDE)
        torch.testing.assert_close(heights, expected if scale > 0 else 1 - expected, atol=1e-5, rtol=0)
    assert module.values(lambda points: torch.zeros(len(points), 1)).abs().max() == 0


def test_weights_begin_as_he_et_al_have_it(example):
    torch.manual_seed(0)
    network = example("plane").relu_network(2, 256, 256, 1)
    assert network[2].weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert not network[2].bias.any() and isinstance(network[-1], nn.Linear)


def test_wgan_gp_covers_modes(example):
    """Of eight, in 400 updates: 7 or 8, by six seeds."""
    module = example("mode_collapse")
    rows, frames = module.play(module.WGAN, "8-gaussians", 0, module.Config(steps=800), len)
    assert rows[0]["modes"] == 0 and rows[-1]["modes"] >= 6 and rows[-1]["good"] > 0.4
    assert [frame.update for frame in frames] == [row["update"] for row in rows] == list(range(0, 401, 10))


def test_mode_collapse(example, tmp_path, monkeypatch):
    """Too short to learn anything: the record, the counts, the film."""
    module = example("mode_collapse")
    monkeypatch.setattr(module, "LOOKS", 4)
    out = tmp_path / "modes.png"
    measured = module.run(module.Config(out=out, steps=16, seeds=2, width=16, batch_size=32, seed=5))
    assert measured["updates"] == {"8-gaussians": [0, 2, 4, 6, 8], "25-gaussians": [0, 4, 8, 12, 16]}
    for toy, count in (("8-gaussians", 8), ("25-gaussians", 25)):
        for method in module.METHODS:
            runs = measured["runs"][toy][method]
            assert len(runs) == 2 and runs[0] != runs[1]
            for of in runs:
                assert all(isinstance(modes, int) and 0 <= modes <= count for modes in of["modes"])
                assert all(0 <= good <= 1 for good in of["good"])
                assert all(0 <= kl <= math.log(count) + 1e-9 for kl in of["kl"])
            ends = sum(of["modes"][-1] < count for of in runs)
            assert measured["runs that end without a mode"][toy][method] == ends
    assert_drawn(out, measured)
    with Image.open(out.with_suffix(".gif")) as film:
        assert film.n_frames == 5
        film.seek(4)
        assert film.info["duration"] == module.LAST_FRAME_MS
        assert len(film.convert("RGB").getcolors()) > 8


def test_sentences_tell_the_ends(example):
    module = example("mode_collapse")
    runs = {method: [{"modes": [0, 8], "good": [0.0, 0.5]}, {"modes": [0, 3], "good": [0.0, 1.0]}] for method in "ab"}
    measured = {"runs": {"8-gaussians": runs}, "runs that end without a mode": {"8-gaussians": {"a": 1, "b": 1}}}
    told = module.sentences(measured, module.Config(steps=2000, seeds=2))
    assert told[0] == (
        "8 gaussians, 1,000 generator updates: modes covered at the end by 2 seeds: a 8, 3 (75% good samples); "
        "b 8, 3 (75% good samples)."
    )
    assert told[1] == "Runs of 2 that end without one mode or more: 8 gaussians: a 1, b 1."


def test_verdicts_of_known_samples(example):
    module, toy = example("mode_collapse"), load("8-gaussians")
    assert module.verdict(toy.modes.repeat(10, 1), toy) == {"modes": 8, "good": 1.0, "kl": 0.0}
    one = module.verdict(toy.modes[:1].repeat(10, 1), toy)
    assert one == {"modes": 1, "good": 1.0, "kl": pytest.approx(math.log(8))}
    assert module.verdict(toy.modes + 4 * toy.spread, toy)["good"] == 0


def test_all_methods_begin_alike(example):
    """With the same networks and the same noise; the learning rate falls to 0."""
    module = example("mode_collapse")
    config = module.Config(batch_size=8, width=8)
    games = [module.Game(method, load("8-gaussians"), 4, 3, config) for method in module.METHODS]
    for game in games[1:]:
        for ours, theirs in zip(game.generator.parameters(), games[0].generator.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs in zip(game.scorer.parameters(), games[0].scorer.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    for game in games:
        for _ in range(4):
            game.update()
        assert [group["lr"] for optimizer in game.optimizers for group in optimizer.param_groups] == [0, 0]


@pytest.mark.parametrize("method", ["WGAN-GP", "GAN", "GAN, n_critic 5"])
def test_updates_of_each_network(example, method):
    """n_critic of the scorer, which sees real points first; then one of the generator, on the loss that is told."""
    module = example("mode_collapse")
    game = module.Game(method, load("8-gaussians"), 10, 0, module.Config(batch_size=64, width=8))
    step, seen = game._learn_scores, []

    def watched(real, fake):
        before = [param.clone() for param in game.generator.parameters()]
        step(real, fake)
        assert all(map(torch.equal, before, game.generator.parameters()))
        seen.append(real.norm(dim=1).mean())

    game._learn_scores = watched
    game.update()
    assert len(seen) == {"WGAN-GP": 5, "GAN": 1, "GAN, n_critic 5": 5}[method]
    assert all(norm == pytest.approx(2 / 1.414, rel=0.01) for norm in seen)

    latent = game._latent()
    scores = game.scorer(game.generator(latent))
    loss = -scores.mean()
    if method != "WGAN-GP":
        loss = binary_cross_entropy_with_logits(scores, torch.ones_like(scores))
    expected = torch.autograd.grad(loss, list(game.generator.parameters()))
    kept = [param.clone() for param in game.scorer.parameters()]
    game._learn_samples(latent)
    assert all(map(torch.equal, kept, game.scorer.parameters()))
    for param, gradient in zip(game.generator.parameters(), expected, strict=True):
        torch.testing.assert_close(param.grad, gradient, rtol=1e-4, atol=1e-7)


def test_one_seed_gives_one_result(example):
    """Of the samples too, whatever was drawn before."""
    module = example("mode_collapse")
    config = module.Config(steps=10, batch_size=8, width=8)
    first = module.play(module.GAN, "25-gaussians", 0, config, len)[1][-1].samples
    torch.rand(3)
    assert torch.equal(first, module.play(module.GAN, "25-gaussians", 0, config, len)[1][-1].samples)
    other = module.play(module.GAN, "25-gaussians", 1, replace(config, seed=1), len)[1][-1].samples
    assert not torch.equal(first, other)


def test_the_published_lengths(example):
    collapse, clipping = example("mode_collapse"), example("clipping")
    full = collapse.Config(full=True).resolved()
    assert (full.updates("25-gaussians"), full.width, full.batch_size, full.lr) == (100_000, 512, 256, 1e-4)
    full = clipping.Config(full=True).resolved()
    assert full.steps == 10_000
    assert [full.critic(hidden)[0].out_features for hidden in (clipping.DEEP, clipping.SHALLOW)] == [512, 512]
    short = clipping.Config(width=20)
    assert short.resolved() == short and short.critic(clipping.DEEP)[0].out_features == 10
    assert len(short.critic(clipping.DEEP)) == 2 * 12 + 1


@pytest.mark.parametrize(
    "name, wrong",
    [("clipping", "--clip-lr 0"), ("clipping", "--gp-weight 0"), ("clipping", "--width 1"),
     ("mode_collapse", "--seeds 0")],
)  # fmt: skip
def test_wrong_arguments(example, capsys, name, wrong):
    module = example(name)
    assert module.main(module.Config, None, "", wrong.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong}")


def test_records_are_those_of_the_film(example):
    """The gallery shows the film where there is one."""
    module = example("gallery")
    folder = EXAMPLES.parent / "docs/gallery"
    record = json.loads((folder / "mode_collapse.json").read_text())
    told = module.entry("mode_collapse", record, folder, 1.0)
    assert "![mode collapse](gallery/mode_collapse.png)" in told and "(gallery/mode_collapse.gif)" in told
    assert "gif" not in module.entry("clipping", record, folder, 1.0)
    with Image.open(folder / "mode_collapse.gif") as film:
        assert film.n_frames == len(record["measured"]["updates"]["25-gaussians"])
    assert (folder / "mode_collapse.gif").stat().st_size < 2_000_000
