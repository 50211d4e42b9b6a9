"""examples/train.py: a run on points, on colours and on one class, each to its end and on again; errors on one line."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("ot", reason="the judges need POT")

from dataset_files import write_cifar10_binary, write_idx
from PIL import Image

from wgan_kernels.training import checkpoint, run
from wgan_kernels.training.cli import main
from wgan_kernels.training.folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parent.parent
FEW = "--iterations 2 --batch-size 4 --n-critic 1 --n-critic-schedule constant --generator-batch-size 4 --device cpu"
EVERY = "--log-every 1 --sample-every 1 --eval-every 1 --checkpoint-every 1"


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(run, "EVALUATED", 50)


@pytest.fixture
def cifar10(tmp_path):
    pixels = torch.randint(256, (10, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    write_cifar10_binary(tmp_path / "cifar10", pixels.to(torch.uint8), torch.arange(10) % 2)
    return tmp_path / "cifar10"


def trained(out, *flags):
    """The rows of a run to its end."""
    assert main([*" ".join(flags).split(), *FEW.split(), *EVERY.split(), "--out", str(out)]) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def sizes(out):
    with Image.open(out / "samples/000002.png") as picture, Image.open(out / "progress.gif") as film:
        return picture.size, picture.mode, film.size, film.n_frames


def test_points(tmp_path, capsys):
    rows = trained(tmp_path / "run", "--preset toy --dataset 25-gaussians")
    assert [row["iteration"] for row in rows] == [1, 2]
    assert {"w1", "sliced_w", "good", "modes", "kl", "wasserstein", "penalty"} <= set(rows[-1])
    assert sizes(tmp_path / "run") == ((450, 450), "RGBA", (450, 450), 3)
    assert "25-gaussians →" in capsys.readouterr().out


def test_colours(tmp_path, cifar10, capsys):
    rows = trained(tmp_path / "run", f"--preset s1-dcgan --data {cifar10} --digits 1")
    assert {"w1", "sliced_w", "wasserstein"} <= set(rows[-1])
    side = 10 * 33 - 1
    assert sizes(tmp_path / "run") == ((2 * side, 2 * side), "RGB", (side, side), 3)
    assert "5 images of the classes 1 →" in capsys.readouterr().out


def test_clothes_are_not_judged_as_digits(tmp_path):
    clothes = torch.randint(256, (10, 28, 28), generator=torch.Generator().manual_seed(0))
    write_idx(tmp_path / "fashion", clothes, torch.arange(10))
    rows = trained(tmp_path / "run", f"--dataset fashion-mnist --data {tmp_path / 'fashion'} --latent 8")
    assert "sliced_w" in rows[-1]
    assert "confidence" not in rows[-1]


def test_a_run_goes_on_with_its_dataset_and_networks(tmp_path):
    out = tmp_path / "run"
    trained(out, "--preset toy --dataset swiss-roll")
    assert main(f"--resume --out {out} --iterations 3".split()) == 0
    state, _ = checkpoint.newest(RunFolder(out).checkpoints)
    assert (state["trainer"]["iteration"], state["config"]["dataset"], state["shape"]) == (3, "swiss-roll", [2])


def test_a_finished_run_in_colours_can_be_sampled_and_one_of_points_cannot(tmp_path, cifar10, capsys):
    spec = importlib.util.spec_from_file_location("sample", ROOT / "examples/sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    trained(tmp_path / "colours", f"--preset s1-mlp --data {cifar10}")
    few = "--grid 2 --strips 1 --steps 2 --walk 1 --frames 2"
    assert script.main(f"--run {tmp_path / 'colours'} {few}".split()) == 0
    with Image.open(tmp_path / "colours/pictures/grid.png") as grid:
        assert (grid.mode, grid.size) == ("RGB", (2 * (2 * 33 - 1),) * 2)
    trained(tmp_path / "points", "--preset toy")
    capsys.readouterr()
    assert script.main(f"--run {tmp_path / 'points'}".split()) == 2
    assert "draws points, not images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--preset wgan-gp-cifar10", "--data: add a folder for --dataset cifar10"),
        ("--preset toy --data somewhere", "--data somewhere: 8-gaussians is a formula without files"),
        ("--preset toy --digits 3", "--digits: 8-gaussians has no classes"),
        ("--preset s0 --method wgan-gp", "--critic-batches in-turn"),
        ("--preset toy --dataset mnist", "toy-mlp: is for points"),
        ("--critic dcgan", "--critic dcgan: has BatchNorm"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert main([*flags.split(), "--out", "run"]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())
