"""The examples that take turns with plain PyTorch, shortened: they learn, and the figures are drawn."""

import pytest
import torch
from PIL import Image
from torch import nn

import wgan_kernels as wk

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("matplotlib", reason="figures need matplotlib")

NAMES = ("r1_penalty", "score_matching", "force_field", "operator_timeline", "labels")


def assert_drawn(path):
    with Image.open(path) as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(1 << 24)) > 100


def test_r1_penalty(example, tmp_path, capsys):
    """Untrained, no sample lies near a centre."""
    module = example("r1_penalty")
    out = tmp_path / "r1.png"
    near, modes = module.run(module.Config(out=out, steps=400, width=128, batch_size=128, lr=2e-3, gamma=0.1))
    assert near > 0.2 and modes >= 2
    assert "PyTorch ÷ wgan_kernels" in capsys.readouterr().out
    assert_drawn(out)


def test_labels(example, tmp_path, capsys):
    """Both ways train the same networks; by chance a tenth of the samples are the digit that was asked for."""
    module = example("labels")
    out = tmp_path / "labels.png"
    assert 0 <= module.run(module.Config(out=out, steps=12, width=8, batch_size=16)) <= 1
    assert "PyTorch ÷ wgan_kernels" in capsys.readouterr().out
    assert_drawn(out)


def test_r1_s_verdict(example):
    module = example("r1_penalty")
    torch.manual_seed(0)
    near, modes = module.verdict(module.real_samples(2000))
    assert near > 0.99 and modes == 8
    assert module.verdict(module.centres()[:1].expand(2000, 2)) == (1.0, 1)
    assert module.verdict(torch.zeros(2000, 2)) == (0.0, 0)


def test_score_matching(example, tmp_path):
    """The relative error, of which no score at all has 1; the samples' own score never enters the loss."""
    module = example("score_matching")
    out = tmp_path / "score.png"
    assert module.run(module.Config(out=out, steps=400, width=64, batch_size=256)) < 0.3
    assert_drawn(out)


def test_force_field(example, tmp_path):
    module = example("force_field")
    out = tmp_path / "forces.png"
    flags = ["--out", str(out), "--steps", "500", "--width", "64"]
    errors = []
    assert module.main(module.Config, lambda config: errors.append(module.run(config)), "", flags) == 0
    assert errors[0][0] < 0.3
    assert_drawn(out)


def test_the_potential_has_its_known_minima(example):
    module = example("force_field")
    slopes = module.forces(wk.reference, module.potential, module.MINIMA).norm(dim=1)
    assert (slopes < 3).all()  # of some hundreds elsewhere
    torch.testing.assert_close(module.potential(module.MINIMA[:1]).item(), -146.7, rtol=0, atol=0.05)
    away = torch.tensor([[0.02, 0.0], [-0.02, 0.01]])
    for step in away:
        back = module.forces(wk.reference, module.potential, module.MINIMA + step)
        assert ((back * step).sum(1) < 0).all()


@pytest.mark.usefixtures("however_small")
@pytest.mark.parametrize("name", ["score_matching", "force_field"])
def test_both_ways_give_one_gradient(example, name):
    module = example(name)
    energy = nn.Sequential(nn.Linear(2, 6), nn.SiLU(), nn.Linear(6, 6), nn.Softplus(), nn.Linear(6, 1)).double()
    x, v = torch.randn(2, 5, 2, dtype=torch.float64)

    def gradients(of):
        if name == "score_matching":
            loss = module.sliced_loss(of, energy, x, v)
        else:
            loss = (module.forces(of, energy, x) - v).square().sum()
        return torch.autograd.grad(loss, list(energy.parameters()), allow_unused=True, materialize_grads=True)

    for ours, theirs in zip(gradients(wk), gradients(wk.reference), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_sliced_loss_is_hyvarinen_s(example):
    """For E = ½ xᵀMx, s = −Mx: the mean over v of vᵀ∇(vᵀs) + ½(vᵀs)² is −tr M + ½‖Mx‖²."""
    module = example("score_matching")
    M = torch.tensor([[2.0, 0.5], [0.5, 1.0]])

    def energy(x):
        return (x @ M * x).sum(1, keepdim=True) / 2

    x = torch.tensor([[0.3, -0.7]])
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # their covariance is 1
    loss = module.sliced_loss(wk, energy, x.expand(4, 2), signs)
    torch.testing.assert_close(loss, -M.trace() + (x @ M).square().sum() / 2)


def test_operator_timeline(example, tmp_path, capsys):
    """Only PyTorch's way has operators that carry zeros, and convolutions for weight gradients."""
    module = example("operator_timeline")
    lanes = module.fastest(module.Options(batch_size=64, rounds=1))
    kinds = {way: {bar.kind for bar in bars} for way, (bars, _) in lanes.items()}
    wasted = {way: sum(bar.is_wasted for bar in bars) for way, (bars, _) in lanes.items()}
    assert module.AS_CONVOLUTION in kinds["PyTorch"] and module.AS_CONVOLUTION not in kinds["wgan_kernels"]
    assert module.WEIGHT in kinds["wgan_kernels"] and module.WEIGHT not in kinds["PyTorch"]
    # Three convolutions backward, the masks between them, and the zeros behind each mask; ours has none of these.
    assert wasted == {"PyTorch": 3 + 2 + 3, "wgan_kernels": 0}
    out = tmp_path / "timeline.png"
    assert module.main(module.Options, module.draw, "", ["--out", str(out), "--rounds", "1"]) == 0
    assert "for zeros" in capsys.readouterr().out
    assert_drawn(out)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["--out missing/x.png", "--out x.txt", "--batch-size 0", "--threads 0"])
def test_wrong_arguments(example, tmp_path, monkeypatch, capsys, name, wrong):
    monkeypatch.chdir(tmp_path)
    module = example(name)
    arguments = wrong.split()
    options = module.Options if name == "operator_timeline" else module.Config
    status = module.main(options, None, "", arguments)
    assert status == 2
    assert capsys.readouterr().err.startswith(f"error: {wrong.split()[0]}")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda place, mode: False)  # root may write everywhere
    module = example("score_matching")
    out = tmp_path / "a.png"
    assert module.main(module.Config, None, "", ["--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: --out {out}: {tmp_path} cannot be written; choose another folder\n"


def test_ctrl_c_is_no_traceback(example, tmp_path, capsys):
    def pressed(config):
        raise KeyboardInterrupt

    module = example("score_matching")
    assert module.main(module.Config, pressed, "", ["--out", str(tmp_path / "a.png")]) == 130
    assert capsys.readouterr().err == "stopped\n"
