"""examples/train_mnist.py as a user runs it: in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from wgan_kernels.training.cli import main
from wgan_kernels.training.config import Config
from wgan_kernels.training.presets import COMPACT

pytest.importorskip("tyro", reason="the command line needs tyro")

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "train_mnist.py"
SMALL = ("--digits", 3, "--batch-size", 4, "--n-critic", 1, "--latent", 8, "--device", "cpu")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
# Threads of several small processes on few cores spend their time waiting for each other: 10 × as slow as one thread.
ENVIRONMENT |= {"OMP_NUM_THREADS": "1"}


def start(*arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def run(*arguments, **options) -> tuple[int, str, str]:
    with start(*arguments, **options) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_end_to_end(tmp_path):
    out = tmp_path / "new" / "run"
    status, text, errors = run(*SMALL, "--iterations", 6, "--sample-every", 2, "--log-every", 3, "--out", out)
    assert (status, errors) == (0, "")
    assert {path.name for path in out.iterdir()} == {
        "samples", "progress.gif", "curves.png", "metrics.jsonl", "config.yaml", "checkpoints",
        "generator.safetensors", "critic.safetensors",
    }  # fmt: skip
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["000000.pt", "000006.pt"]
    assert sorted(path.name for path in (out / "samples").iterdir()) == [f"{n:06d}.png" for n in (0, 2, 4, 6)]
    with Image.open(out / "progress.gif") as film:
        assert film.n_frames == 4
    for picture in (out / "curves.png", out / "samples" / "000006.png"):
        with Image.open(picture) as image:
            assert len(set(image.convert("L").tobytes())) > 10
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [3, 6]
    assert {"seconds", "critic_real", "critic_fake", "generator", "wasserstein", "penalty", "gradient_norm"} <= set(
        rows[0]
    )
    assert len(rows[-1]["histogram"]) == 10
    assert rows[-1]["fid"] > 0
    assert Config.from_yaml((out / "config.yaml").read_text()).digits == (3,)
    for name in ("classifier-FID", "confidence", "smallest mode", "000006.png", "progress.gif", "curves.png"):
        assert name in text


def test_ctrl_c_saves_and_resume_goes_on(tmp_path):
    out = tmp_path / "run"
    with start(*SMALL, "--iterations", 10**6, "--checkpoint-every", 10**6, "--out", out) as process:
        for line in process.stdout:  # plain progress lines, since this is a pipe
            if line.startswith("10/"):
                process.send_signal(signal.SIGINT)
                break
        text, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "")
    assert f"--out {out} --resume" in text
    done = int(text.split("saved at iteration ")[1].split(";")[0])
    assert done >= 10
    status, text, errors = run("--out", out, "--resume", "--iterations", done + 3)
    assert (status, errors) == (0, "")
    assert f"from iteration {done}" in text
    iterations = [json.loads(line)["iteration"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert iterations == [*range(10, done + 1, 10), *(n for n in range(done + 1, done + 3) if n % 10 == 0), done + 3]


def test_a_pipe_that_nobody_reads_any_more_ends_it_with_one_line(tmp_path):
    """As with "| head"."""
    out = tmp_path / "run"
    with start(*SMALL, "--iterations", 10**6, "--log-every", 1, "--out", out) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=300) == 2
    assert errors == "error: nobody reads the standard output any more; what was saved before is kept\n"
    assert (out / "checkpoints" / "000000.pt").exists()


def test_wrong_arguments_are_refused_on_one_line_before_anything_is_written(tmp_path, monkeypatch, capsys):
    """Through the script's entry, in this process; through the script itself below."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("four years of work")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\3")
    before = sorted(tmp_path.rglob("*"))
    cases = {
        "--digits 11": "--digits 11: expected digits from 0 to 9",
        "--iterations 0": "--iterations 0: expected a whole number of at least 1",
        "--iterations -3": "--iterations -3",
        "--batch-size 0": "--batch-size 0",
        "--lr 0": "--lr 0.0: expected a positive number",
        "--lr nan": "--lr nan",
        "--device cuda:77": "--device cuda:77: cannot be used here",
        "--device teapot": "--device teapot",
        "--device meta": "--device meta: training runs on cpu and cuda only; use --device cpu",
        "--seed 99999999999999999999999": "--seed 99999999999999999999999: expected a whole number from -",
        "--data file": "--data file: is a file",
        "--data broken": "truncated inside its header",
        "--out file": "--out file: is a file",
        "--out file/run": "--out file/run: ",
        "--out full": "--out full: is not empty; choose another folder, or add --resume",
        "--out full --resume": "--resume: there is no checkpoint",
        "--out nowhere --resume": "--resume: there is no checkpoint",
        "--resume": "--resume: add --out",
        "--time-limit 0": "--time-limit 0",
    }
    for arguments, message in cases.items():
        assert main(arguments.split()) == 2, arguments
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1, captured.err
        assert sorted(tmp_path.rglob("*")) == before, arguments


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions as of POSIX")
@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0 and not shutil.which("setpriv"),
    reason="root may write everywhere, unless setpriv takes that from it",
)
def test_a_folder_without_permission_is_refused(tmp_path):
    """For a new run, and for a resumed one, whose checkpoints stay as they were."""
    run_folder, forbidden = tmp_path / "run", tmp_path / "forbidden"
    begin = [*map(str, SMALL), "--iterations", "1", "--sample-every", "9", "--out", str(run_folder)]
    code = f"import os; from wgan_kernels.training import cli, run; run.EVALUATED = 20; assert cli.main({begin}) == 0\n"
    code += f"os.chmod({str(run_folder / 'checkpoints')!r}, 0o500); os.chmod({str(run_folder)!r}, 0o500)\n"
    code += f"before = sorted(os.listdir({str(run_folder / 'checkpoints')!r}))\n"
    code += f"assert cli.main(['--out', {str(run_folder)!r}, '--resume', '--iterations', '2']) == 2\n"
    code += f"assert sorted(os.listdir({str(run_folder / 'checkpoints')!r})) == before\n"
    code += f"os.mkdir({str(forbidden)!r}, 0o500); assert cli.main(['--out', {str(forbidden / 'run')!r}]) == 2"
    unprivileged = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run([*unprivileged, sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    run_folder.chmod(0o700)
    (run_folder / "checkpoints").chmod(0o700)
    assert done.returncode == 0, done.stderr
    resumed, new = done.stderr.splitlines()
    assert resumed.startswith(f"error: {run_folder / 'config.yaml'} cannot be written (Permission denied)")
    assert new == f"error: --out {forbidden / 'run'}: {forbidden} cannot be written; choose another folder"


def test_the_script_itself_refuses_on_one_line(tmp_path):
    status, text, errors = run("--digits", 12, "--out", tmp_path / "run")
    assert (status, text) == (2, "")
    assert errors == "error: --digits 12: expected digits from 0 to 9, for example --digits 3 or --digits 3 4 6\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["wgan", "wgan-gp"])
def test_help_names_every_flag_and_the_methods_defaults(capsys, method):
    with pytest.raises(SystemExit) as stopped:
        main(["--method", method, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in Config.__dataclass_fields__:
        assert "--" + name.replace("_", "-") in text
    assert f"(default: {COMPACT[method].iterations})" in text


def test_a_missing_package_is_named_with_the_remedy():
    hide = "import sys; sys.modules['tyro'] = None; import importlib.util as u; find = u.find_spec; "
    hide += "u.find_spec = lambda name, *rest: None if name == 'tyro' else find(name, *rest); "
    hide += "from wgan_kernels.training.cli import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr == 'error: training needs tyro: pip install "wgan-kernels[train]"\n'


def test_the_package_alone_imports_no_training():
    code = "import sys, wgan_kernels; print([n for n in sys.modules if n.split('.')[0] in "
    code += "{'torchvision', 'matplotlib', 'rich', 'tyro', 'yaml', 'torchmetrics'} or n == 'wgan_kernels.training'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("[]\n", "")
