"""examples/sample.py and wgan_kernels.training.sampling: pictures from a run, from weights, and what is refused."""

import importlib.util
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from wgan_kernels.training import checkpoint, report, run, sampling, weights
from wgan_kernels.training.config import Config
from wgan_kernels.training.errors import UsageError

pytest.importorskip("tyro", reason="the command line needs tyro")

SCRIPT = Path(__file__).parent.parent / "examples" / "sample.py"
FEW = "--grid 3 --strips 2 --steps 4 --walk 2 --frames 6"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("sample", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["sample"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module.main
    del sys.modules["sample"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two iterations."""
    config = replace(Config(), out=tmp_path_factory.mktemp("trained") / "run", digits=(3,), batch_size=4, n_critic=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "EVALUATED", 50)
        patch.setattr(report, "save_curves", lambda *arguments: None)
        begun = run.Run(replace(config, latent=8, iterations=2, device="cpu"))
        assert begun.train()
    return begun


def images_of(path: Path, rows: int, columns: int) -> torch.Tensor:
    """The pictures of a grid, in reading order: uint8 [rows·columns, 28, 28]."""
    with Image.open(path) as picture:
        sheet = torch.frombuffer(bytearray(picture.convert("L").tobytes()), dtype=torch.uint8)
        sheet = sheet.reshape(picture.height, picture.width)[:: report.SCALE, :: report.SCALE]
    assert sheet.shape == (29 * rows - 1, 29 * columns - 1)
    corners = [(29 * row, 29 * column) for row in range(rows) for column in range(columns)]
    return torch.stack([sheet[top : top + 28, left : left + 28] for top, left in corners])


def pixels(images: torch.Tensor) -> torch.Tensor:
    return ((images.squeeze(1) + 1) * 127.5).round().to(torch.uint8)


def test_the_pictures_are_the_averaged_generators(trained, main, tmp_path, capsys):
    assert main(f"--run {trained.config.out} --out {tmp_path / 'pictures'} --seed 5 {FEW}".split()) == 0
    grid, strips, walk = (tmp_path / "pictures" / name for name in ("grid.png", "strips.png", "walk.gif"))
    assert capsys.readouterr().out.splitlines() == [str(grid), str(strips), str(walk)]

    latent = torch.randn(9, 8, generator=torch.Generator().manual_seed(5))
    (expected,) = trained.trainer.sample(latent)
    assert torch.equal(images_of(grid, 3, 3), pixels(expected))

    noise = torch.Generator().manual_seed(5)
    ends = torch.stack([torch.randn(2, 8, generator=noise), torch.randn(2, 8, generator=noise)], 1)  # [row, end, L]
    (expected,) = trained.trainer.sample(ends.flatten(0, 1))
    assert torch.equal(images_of(strips, 2, 4)[[0, 3, 4, 7]], pixels(expected))

    with Image.open(walk) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (6, ((29 * 2 - 1) * report.SCALE,) * 2, 0)
        assert film.info["duration"] == sampling.FRAME_MS


def test_a_run_and_its_weights_give_the_same_pictures_and_another_seed_others(trained, main, tmp_path):
    sources = f"--run {trained.config.out}", f"--weights {trained.folder.generator}"
    for source, out in zip(sources, "ab", strict=True):
        assert main(f"{source} --out {tmp_path / out} {FEW}".split()) == 0
    assert main(f"{sources[0]} --out {tmp_path / 'c'} --seed 1 {FEW}".split()) == 0
    for name in ("grid.png", "strips.png", "walk.gif"):
        first, second, other = ((tmp_path / out / name).read_bytes() for out in "abc")
        assert first == second != other


def test_many_digits_are_generated_in_parts(trained, main, tmp_path, monkeypatch):
    seen = []
    make = weights.generator_of

    def watched(*arguments):
        generator = make(*arguments)
        generator.register_forward_hook(lambda network, given, images: seen.append(len(images)))
        return generator

    monkeypatch.setattr(weights, "generator_of", watched)
    monkeypatch.setattr(sampling, "AT_ONCE", 4)
    assert main(f"--run {trained.config.out} --out {tmp_path / 'parts'} {FEW}".split()) == 0
    monkeypatch.undo()
    assert max(seen) == 4 and sum(seen) == 3 * 3 + 2 * 4 + 2 * 2 * 6
    assert main(f"--run {trained.config.out} --out {tmp_path / 'whole'} {FEW}".split()) == 0
    for name, rows, columns in (("grid.png", 3, 3), ("strips.png", 2, 4)):
        parts, whole = (images_of(tmp_path / folder / name, rows, columns).int() for folder in ("parts", "whole"))
        assert (parts - whole).abs().max() <= 1


def test_nothing_that_exists_is_overwritten_unasked(trained, main, tmp_path, capsys):
    (tmp_path / "strips.png").write_text("mine")
    assert main(f"--run {trained.config.out} --out {tmp_path} {FEW}".split()) == 2
    assert "strips.png: there already; choose another --out, or add --overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["strips.png"]
    assert (tmp_path / "strips.png").read_text() == "mine"
    assert main(f"--run {trained.config.out} --out {tmp_path} {FEW} --strips 0".split()) == 0
    assert (tmp_path / "strips.png").read_text() == "mine"
    assert main(f"--run {trained.config.out} --out {tmp_path} --overwrite {FEW}".split()) == 0
    assert images_of(tmp_path / "strips.png", 2, 4).shape == (8, 28, 28)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(trained, main, tmp_path, capsys):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for path in checkpoint.saved(trained.folder.checkpoints):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "000009.pt").write_bytes(b"half")
    assert main(f"--run {tmp_path / 'run'} --grid 2 --strips 0 --walk 0".split()) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"warning: {folder / '000009.pt'} is damaged")
    assert "checkpoint of iteration 2 is used" in captured.err
    assert (tmp_path / "run" / "pictures" / "grid.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "name either --run, the folder of a training run, or --weights"),
        ("--run a --weights b", "name either --run"),
        ("--run nowhere", "--run nowhere: holds no checkpoints; name the --out of a training run"),
        ("--weights nothing.safetensors", "nothing.safetensors cannot be read as safetensors"),
        ("--weights text", "text cannot be read as safetensors"),
        ("--weights CRITIC", "does not say the generator's latent"),
        ("--run RUN --out text", "--out text: cannot be made"),
        ("--run RUN --steps 1", "--steps 1: expected a whole number from 2"),
        (f"--run RUN --seed {10**20}", f"--seed {10**20}: expected a whole number from -9223372036854775808 to"),
        ("--run RUN --grid -1", "--grid -1: expected a whole number from 0"),
        ("--run RUN --frames 501", "--frames 501: expected a whole number from 2 to 500"),
        ("--run RUN --grid 0 --strips 0 --walk 0", "nothing is left to draw"),
    ],
)
def test_wrong_arguments_are_refused_on_one_line(trained, main, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("hello")
    arguments = arguments.replace("RUN", str(trained.config.out)).replace("CRITIC", str(trained.folder.critic))
    assert main(arguments.split()) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert os.listdir() == ["text"]


def test_the_script_itself(trained, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPT, "--run", trained.config.out, "--out", tmp_path, *FEW.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", "strips.png", "walk.gif"}


def test_slerp_keeps_to_the_arc():
    start, end = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    path = sampling.slerp(start, end, 3)[0]
    torch.testing.assert_close(path, torch.tensor([[2.0, 0, 0], [math.sqrt(2), math.sqrt(2), 0], [0, 2.0, 0]]))
    noise = torch.Generator().manual_seed(0)
    start, end = torch.randn(50, 32, generator=noise), torch.randn(50, 32, generator=noise)
    path = sampling.slerp(start, end, 7)
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)
    # the straight line's middle is at 0.7 of the norm of its ends
    middle = path[:, 3].norm(dim=1) / (start.norm(dim=1) + end.norm(dim=1)) * 2
    assert 0.9 < middle.min() < middle.max() < 1.1


def test_slerp_of_points_on_one_line_is_the_line():
    start = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    end = torch.tensor([[1.0, 2.0], [3.0, 6.0], [-1.0, -2.0]])
    torch.testing.assert_close(sampling.slerp(start, end, 5)[:, 2], (start + end) / 2)


def test_a_circle_closes_at_equal_steps_and_stays_normal():
    noise = torch.Generator().manual_seed(0)
    one, other = torch.randn(2000, 32, generator=noise), torch.randn(2000, 32, generator=noise)
    path = sampling.circle(one, other, 8)
    torch.testing.assert_close(path[0], one)
    torch.testing.assert_close(path[2], other)
    torch.testing.assert_close(path[4], -one)
    steps = (path.roll(-1, 0) - path).square().mean((1, 2))  # the last of them closes the circle
    torch.testing.assert_close(steps, steps.mean().expand(8), rtol=0.02, atol=0)
    torch.testing.assert_close(path.std((1, 2)), torch.ones(8), rtol=0.02, atol=0)


def test_weights_of_another_network_are_refused(trained):
    state = trained.trainer.critic.state_dict()
    with pytest.raises(UsageError, match="holds no weights of this generator"):
        weights.generator_of(state, "compact", 8, (1, 28, 28), Path("somewhere"))
