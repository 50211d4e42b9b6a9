"""The documents' experiments, shortened: they find the known values, and what must fail fails; the gallery's frame."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("matplotlib", reason="figures need matplotlib")

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("earth_mover", "parallel_lines", "divergences", "clipping", "mode_collapse")
OF_DIGITS = ("quality_curve", "wgan_and_wgan_gp", "one_digit")  # test_gallery_digits.py has their tests


def assert_drawn(out, measured):
    """The figure is there, and the record holds what was measured."""
    with Image.open(out) as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(1 << 24)) > 100
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["measured"] == json.loads(json.dumps(measured))
    assert record["sentences"] and "seed" in record["settings"] and str(out.parent) not in json.dumps(record)


def test_earth_mover(example, tmp_path):
    pytest.importorskip("ot", reason="the transport plan needs POT")
    module = example("earth_mover")
    out = tmp_path / "earth.png"
    measured = module.run(module.Config(out=out, steps=600))
    exact = measured["cumulative"]
    assert measured["primal"] == pytest.approx(exact, rel=1e-12) == measured["dual"]
    assert measured["critic"] == pytest.approx(exact, rel=0.03)
    assert 0.97 * exact < measured["critic, over its steepest slope"] <= exact
    assert measured["critic, two-sided penalty"] < 0.2 * exact
    assert_drawn(out, measured)


def test_one_seed_gives_one_result(example):
    module = example("parallel_lines")
    configs = (module.Config(steps=20, updates=5, seed=seed) for seed in (0, 0, 1))
    first, again, other = (module.learn("WGAN", config, len) for config in configs)
    assert first == again != other


def test_the_transport_plan_is_optimal(example):
    """It has the two marginals, moves earth only where f + g is the distance, and f + g is nowhere more."""
    pytest.importorskip("ot", reason="the transport plan needs POT")
    module = example("earth_mover")
    solved = module.transport(module.P_R, module.P_T, module.POINTS)
    torch.testing.assert_close(solved.plan.sum(1), module.P_R)
    torch.testing.assert_close(solved.plan.sum(0), module.P_T)
    slack = solved.distance - solved.f[:, None] - solved.g
    assert slack.min() > -1e-12 and slack[solved.plan > 0].abs().max() < 1e-12


def test_work_by_cumulative_distributions(example):
    """All earth from 0 to 3; half of it from 1 to 3; nothing."""
    module = example("earth_mover")
    points = torch.tensor([0.0, 1.0, 3.0])
    first, second, third = torch.eye(3)
    assert module.by_cumulative_distributions(first, third, points) == 3
    assert module.by_cumulative_distributions(second, (second + third) / 2, points) == 1
    assert module.by_cumulative_distributions(first, first, points) == 0


def test_parallel_lines(example, tmp_path):
    """W₁ is found, JS says log 2 and gives no gradient, KL has no end; WGAN learns θ, neither loss of a GAN does."""
    module = example("parallel_lines")
    out = tmp_path / "lines.png"
    measured = module.run(module.Config(out=out, steps=200, distances=3, updates=120, theta_lr=0.05))
    assert [row["theta"] for row in measured["rows"]] == [-1, 0, 1]
    assert measured["largest relative error"]["critic"] < 0.03
    assert measured["largest relative error"]["critic, over its steepest slope"] < 0.03
    assert all(row["critic, over its steepest slope"] <= 1 for row in measured["rows"])
    assert measured["largest error of JS"] < 1e-3
    assert abs(measured["rows"][1]["critic"]) < 0.02 and abs(measured["rows"][1]["JS"]) < 0.02
    assert measured["KL at θ = 1"]["all"] > 2 * measured["KL at θ = 1"]["a tenth of the updates"] > 2
    assert [row["gradients"]["WGAN"] for row in measured["rows"]][::2] == pytest.approx([-1, 1], rel=0.05)
    assert measured["sizes of the gradient"]["GAN, log(1 − D)"][1] < 1e-3
    assert measured["sizes of the gradient"]["GAN, −log D"][0] > 10
    low, high = measured["last θ"]["WGAN"]
    assert -0.1 < low <= high < 0.1
    assert measured["last θ"]["GAN, log(1 − D)"][0] > 0.95
    low, high = measured["last θ"]["GAN, −log D"]
    assert high - low > 0.5
    assert_drawn(out, measured)


def test_the_original_schedule_of_parallel_lines(example):
    config = example("parallel_lines").Config(full=True)
    counts = [config.updates_before(update) for update in (0, 1, 24, 25, 26, 499, 500, 501)]
    assert counts == [config.steps, 100, 100, 5, 5, 5, 100, 5]


def test_divergences(example, tmp_path):
    """All are found while the Gaussians overlap; far apart KL and both its and JS's gradients are lost, W₁'s is not."""
    module = example("divergences")
    out = tmp_path / "divergences.png"
    measured = module.run(module.Config(out=out, steps=300, means=(1, 35)))
    values, known, slopes = measured["found"], measured["known"], measured["gradients found"]
    assert set(values) == set(known) == set(slopes) == set(module.MEASURES)
    for name in values:
        assert values[name][0] == pytest.approx(known[name][0], rel=0.1), name
        assert slopes[name][0] == pytest.approx(measured["gradients known"][name][0], rel=0.15), name
    assert values["W₁"][1] == pytest.approx(35, rel=0.04) and slopes["W₁"][1] == pytest.approx(1, rel=0.04)
    assert values["JS"][1] == pytest.approx(math.log(2), abs=1e-3)
    assert values["KL"][1] < 0.1 * known["KL"][1] == 61.25
    assert abs(slopes["KL"][1]) < 1e-3 and abs(slopes["JS"][1]) < 1e-3
    assert_drawn(out, measured)


def test_known_divergences(example):
    """Against torch.distributions, and for JS against sums over samples."""
    module = example("divergences")
    means = torch.tensor([0.0, 0.5, 2.0, 35.0], dtype=torch.float64)
    p, q = torch.distributions.Normal(0.0 * means, 1.0), torch.distributions.Normal(means, 1.0)
    known = module.exact(means)
    torch.testing.assert_close(known["KL"], torch.distributions.kl_divergence(p, q))
    torch.testing.assert_close(known["cross-entropy"], p.entropy() + known["KL"])
    torch.testing.assert_close(known["W₁"], means)
    torch.manual_seed(0)
    x, y = p.sample((200_000,)), q.sample((200_000,))
    sampled = sum(
        (first.log_prob(of) - torch.logaddexp(p.log_prob(of), q.log_prob(of))).mean(0) / 2
        for first, of in ((p, x), (q, y))
    ) + math.log(2)
    torch.testing.assert_close(known["JS"], sampled, atol=2e-3, rtol=0)
    slopes = module.exact_gradients(means)
    for name in ("cross-entropy", "KL"):
        torch.testing.assert_close(slopes[name], means)
    shifted = (module.js_by_quadrature(means + 1e-4) - module.js_by_quadrature(means - 1e-4)) / 2e-4
    torch.testing.assert_close(slopes["JS"], shifted, atol=1e-6, rtol=0)


STUB = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.write_bytes(b"figure")
record = {"where": "here", "sentences": ["It is \\\\1.", "And 2."]}
out.with_suffix(".json").write_text(json.dumps(record))
"""


@pytest.fixture
def frame(example, tmp_path, monkeypatch):
    """(the gallery's module over scripts in a temporary folder, its page)."""
    module = example("gallery")
    monkeypatch.setattr(module, "EXAMPLES", tmp_path)
    (tmp_path / "earth_mover.py").write_text(STUB)
    (tmp_path / "divergences.py").write_text("raise SystemExit(3)")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- earth_mover -->\nold\n<!-- /earth_mover -->\n<!-- divergences -->\nkept\n"
                    "<!-- /divergences -->\nafter\n")  # fmt: skip
    return module, page


def test_the_gallery_is_filled_from_the_record(frame):
    module, page = frame
    assert module.main(["--page", str(page), "--only", "earth_mover"]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- earth_mover -->\n**Measured.** It is \\1. And 2.\n\n![")
    assert "old" not in text and "kept" in text and text.endswith("after\n")
    assert "(page/earth_mover.png)" in text and "python examples/earth_mover.py" in text
    assert (page.with_suffix("") / "earth_mover.png").read_bytes() == b"figure"


def test_what_the_gallery_refuses(frame, capsys, tmp_path):
    """A script that fails, a page without the place, no page: one line, and the page as it was."""
    module, page = frame
    before = page.read_text()
    for arguments, message in (
        (["--page", str(page), "--only", "divergences"], "divergences: its script failed"),
        (["--page", str(page), "--only", "parallel_lines"], "the gallery has 0 places for parallel_lines"),
        (["--page", str(tmp_path / "none.md")], "--page"),
    ):
        assert module.main(arguments) == 2
        assert f"error: {message}" in capsys.readouterr().err
        assert page.read_text() == before


def test_the_page_has_a_place_for_every_experiment(example):
    """And what stands there is what its record says."""
    module = example("gallery")
    page = EXAMPLES.parent / "docs/gallery.md"
    for name in (*NAMES, *OF_DIGITS):
        record = json.loads((page.with_suffix("") / f"{name}.json").read_text())
        assert module.fill(page.read_text(), name, "") != page.read_text()
        assert " ".join(record["sentences"]) in page.read_text()
        with Image.open(page.with_suffix("") / f"{name}.png") as image:
            assert image.width > 1000
    assert set(module.get_args(module.Name)) == {*NAMES, *OF_DIGITS}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["--out missing/x.png", "--out x.txt", "--steps 0", "--weight 0", "--lr 2"])
def test_wrong_arguments(example, tmp_path, monkeypatch, capsys, name, wrong):
    monkeypatch.chdir(tmp_path)
    module = example(name)
    assert module.main(module.Config, None, "", wrong.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong.split()[0]}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["--distances 4", "--updates 0", "--n-critic 0", "--theta-lr 0"])
def test_wrong_arguments_of_parallel_lines(example, capsys, wrong):
    module = example("parallel_lines")
    assert module.main(module.Config, None, "", wrong.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong.split()[0]}")


def test_wrong_means(example, capsys):
    module = example("divergences")
    assert module.main(module.Config, None, "", ["--means", "1", "-3"]) == 2
    assert capsys.readouterr().err.startswith("error: --means")
