"""wgan_kernels.training.distributed: N processes are one with the joined batch; together they start, stop and fail."""

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

import wgan_kernels as wk
from wgan_kernels.training import checkpoint, data, distributed, models
from wgan_kernels.training.cli import main, parse
from wgan_kernels.training.config import Config
from wgan_kernels.training.device import take_own_gpu
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.presets import COMPACT
from wgan_kernels.training.trainer import Trainer

pytest.importorskip("tyro", reason="the command line needs tyro")
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs Gloo")

ROOT = Path(__file__).parent.parent
BATCH = 4
WAYS = ("wgan", "wgan-gp", "program", "generator")
TYPES = {torch.float32: 1e-6, torch.float64: 1e-14}  # and how far gradients, of 0.01 to 10, may be apart
SETTINGS = {"batch_size": BATCH, "n_critic": 2, "latent": 8, "device": "cpu", "digits": (3,)}


# --- what each rank does -----------------------------------------------------------------------------------------


def inputs(way, dtype, ranks):
    """real, fake, ε, latents of the joined batch: the same wherever it is called."""
    random = torch.Generator().manual_seed(WAYS.index(way))
    shapes = ((1, 28, 28), (1, 28, 28), (), (8,))
    return [torch.rand(ranks * BATCH, *shape, dtype=dtype, generator=random) for shape in shapes]


def gradients(way, dtype, real, fake, eps, latent):
    """(gradients, parameters) after one step; networks begin with rank 0's weights."""
    torch.manual_seed(distributed.rank())
    critic, generator = (
        models.critic("compact", (1, 28, 28)).to(dtype),
        nn.Sequential(nn.Linear(8, 28 * 28), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))),
    )
    generator = generator.to(dtype)
    distributed.broadcast_([*critic.parameters(), *generator.parameters()])
    network = generator if way == "generator" else critic
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    distributed.average_gradients_before_step(optimizer)
    if way == "program":
        step = wk.CriticStep(critic, optimizer, tune=False)
        assert "gradient_penalty and backward" not in step.plan
        step._points = lambda real, fake: wk.interpolate(real, fake, eps)
        step(real, fake)
    elif way == "generator":
        wk.GeneratorStep(generator, critic, optimizer)(latent)
    else:
        penalty = wk.gradient_penalty(critic, real, fake, eps=eps) if way == "wgan-gp" else None
        wk.critic_loss(critic(real), critic(fake), penalty).backward()
        optimizer.step()
    return [param.grad for param in network.parameters()], [param.detach() for param in network.parameters()]


def some_without_gradients():
    """The second parameter has a gradient on the last rank only, the third nowhere; all are in bfloat16."""
    first, second, third = (nn.Parameter(torch.ones(64, dtype=torch.bfloat16)) for _ in range(3))
    optimizer = wk.optim.Adam([{"params": [first, second]}, {"params": [third]}], lr=0.1, weight_decay=0.5)
    distributed.average_gradients_before_step(optimizer)
    first.grad = half_gradient(distributed.rank())
    if distributed.rank() == distributed.size() - 1:
        second.grad = torch.full_like(second, 6.0)
    optimizer.step()
    return [first.grad, second.grad, third.grad, first.detach(), second.detach(), third.detach()]


def half_gradient(rank):
    return torch.randn(64, generator=torch.Generator().manual_seed(rank)).bfloat16()


def hook_alone():
    """Errors of the hook, and its end."""
    param = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([param], lr=0.0)
    handle = distributed.average_gradients_before_step(optimizer)
    for step in (lambda: optimizer.step(lambda: 0.0), lambda: optimizer.step(closure=lambda: 0.0)):
        with pytest.raises(TypeError, match=r"step\(closure\)"):
            step()
    optimizer.step(None)  # no gradient anywhere
    handle.remove()
    param.grad = torch.full_like(param, float(distributed.rank()))
    optimizer.step()
    return param.grad


def exchanges(folder):
    rank = distributed.rank()
    column = torch.full((2, 3), float(rank)).T  # not contiguous
    distributed.broadcast_([column])
    mixed = [torch.tensor([rank]).float(), torch.full((2, 2), 10.0 * rank).double().T]
    distributed.average_(mixed)

    seen = []

    def download():
        seen.append((folder / "downloaded").exists())
        if rank == 0:
            time.sleep(0.3)  # were the others to start at once, they would see nothing
            (folder / "downloaded").touch()
        return rank, seen

    return {
        "broadcast": column,
        "average": mixed,
        "gather": distributed.gather(torch.tensor([rank, 7])),
        "anyone": distributed.anyone(rank == 1, False, True),
        "from_rank_0": distributed.from_rank_0(lambda: {"rank": rank}),
        "first": distributed.once_per_machine_first(download),
    }


def train(method):
    """Three iterations; the last of them again, resumed; the state after, and what this rank drew from."""
    config = replace(COMPACT[method], **SETTINGS, seed=distributed.rank())  # other weights, until they are broadcast
    threes = data.embedded().only([3])
    trainer = Trainer(config, threes)
    drawn = [trainer.random.initial_seed(), trainer.data.images]
    trainer.iterate()
    trainer.iterate()
    resumed = Trainer(config, threes)
    assert resumed.load_state_dict(copy.deepcopy(trainer.state_dict()))
    trainer.iterate()
    resumed.iterate()
    return drawn, trainer.state_dict(), resumed.state_dict()


def everything(folder):
    result = {"exchanges": exchanges(folder), "missing": some_without_gradients(), "hook": hook_alone()}
    for way in WAYS:
        for dtype in TYPES:
            mine = slice(distributed.rank() * BATCH, (distributed.rank() + 1) * BATCH)
            shards = [tensor[mine] for tensor in inputs(way, dtype, distributed.size())]
            result[way, dtype] = gradients(way, dtype, *shards)
    for method in ("wgan", "wgan-gp"):
        result[method] = train(method)
    return result


def refused():
    """What each rank sees of a mistake that only rank 0 finds, and of the end of rank 1."""
    seen = []
    for exchange in (distributed.from_rank_0, distributed.once_per_machine_first):
        try:
            exchange(refuse)
        except (UsageError, SystemExit) as error:
            seen.append(f"{type(error).__name__}: {error}")
    if distributed.rank() == 1:
        torch.save(seen, Path(os.environ["FOLDER"]) / "1.pt")
        os._exit(3)
    return [*seen, lost()]


def hanging(seconds):
    if distributed.rank() == 1:
        time.sleep(seconds)
    return lost()


def lost():
    started = time.monotonic()
    try:
        distributed.anyone(False)
    except distributed.LostRank as error:
        return str(error), time.monotonic() - started
    return None


def refuse():
    raise UsageError("no")


def _rank(function, arguments, rank, size, port, timeout, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "FOLDER": str(folder)}
    torch.set_num_threads(1)
    try:
        with distributed.session(timeout):
            torch.save(function(*arguments), folder / f"{rank}.pt")
    except (distributed.LostRank, UsageError, SystemExit) as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")


def on_ranks(size, folder, function, *arguments, timeout=60.0):
    """What ``function`` returns on each of ``size`` ranks, or the name of what it raises there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    limit = timedelta(seconds=timeout)
    ranks = [
        spawn.Process(target=_rank, args=(function, arguments, rank, size, port, limit, folder)) for rank in range(size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        if process.is_alive():
            process.kill()
    results = []
    for rank in range(size):
        saved, text = folder / f"{rank}.pt", folder / f"{rank}.txt"
        results.append(torch.load(saved, weights_only=False) if saved.exists() else text.exists() and text.read_text())
    return results


# --- N ranks are one process with the joined batch ---------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"{request.param}-ranks")
    results = on_ranks(request.param, folder, everything, folder)
    assert all(isinstance(result, dict) for result in results), results
    return results


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_the_gradients_are_those_of_the_joined_batch(ranks, way, dtype):
    expected = gradients(way, dtype, *inputs(way, dtype, len(ranks)))
    for rank in ranks:
        for kind, joined in zip(rank[way, dtype], expected, strict=True):
            for actual, wanted in zip(kind, joined, strict=True):
                torch.testing.assert_close(actual, wanted, rtol=0, atol=TYPES[dtype])
        for mine, first in zip(rank[way, dtype][1], ranks[0][way, dtype][1], strict=True):
            assert torch.equal(mine, first)


def test_a_gradient_that_is_none_somewhere(ranks):
    size = len(ranks)
    for found in ranks:
        first, second, third, *after = found["missing"]
        joined = torch.stack([half_gradient(rank).float() for rank in range(size)])
        assert torch.equal(first, joined.mean(0).bfloat16())  # added up in float32, rounded once
        assert torch.equal(second, torch.full((64,), 6.0 / size).bfloat16())
        assert third is None
        assert torch.equal(after[2], torch.ones(64).bfloat16())
        assert all(torch.equal(a, b) for a, b in zip(after, ranks[0]["missing"][3:], strict=True))


def test_the_hook_ends_with_its_handle(ranks):
    assert [rank["hook"].tolist() for rank in ranks] == [[float(index)] * 2 for index in range(len(ranks))]


def test_exchanges(ranks):
    size = len(ranks)
    mean = sum(range(size)) / size
    for index, found in enumerate(rank["exchanges"] for rank in ranks):
        assert torch.equal(found["broadcast"], torch.zeros(3, 2))
        assert [tensor.unique().tolist() for tensor in found["average"]] == [[mean], [10 * mean]]
        assert [tensor.dtype for tensor in found["average"]] == [torch.float32, torch.float64]
        assert found["gather"].tolist() == [[other, 7] for other in range(size)]
        assert found["anyone"] == (True, False, True)
        assert found["from_rank_0"] == {"rank": 0}
        assert found["first"] == (index, [index > 0])


@pytest.mark.parametrize("method", ["wgan", "wgan-gp"])
def test_a_trainer_is_the_same_on_all_ranks_but_for_what_it_draws(ranks, method):
    """The networks, their average, the optimizers, bit for bit; also after a resume."""
    states = [tensors(state) for rank in ranks for state in rank[method][1:]]
    assert len(states[0]) > 40
    for state in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], state, strict=True))
    random = ranks[0][method][1]["random"]
    assert len({bytes(state.tolist()) for state in random}) == len(random) == len(ranks)
    shards = [rank[method][0][1] for rank in ranks]
    assert sum(map(len, shards)) == 1010
    assert torch.equal(torch.cat(shards).sum(0, dtype=torch.int64), data.embedded().only([3]).images.sum(0))


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for value in values for tensor in tensors(value)]


def test_ranks_of_one_run_and_of_neighbouring_seeds_draw_other_numbers(ranks):
    # The ranks above had the seeds 0, 1, …; with RANK_SEEDS between them, no two begin alike.
    seeds = [rank["wgan"][0][0] for rank in ranks]
    assert len({seed % 1_000_003 for seed in seeds}) == len(seeds)
    assert len({seed // 1_000_003 for seed in seeds}) == len(seeds)


def test_another_number_of_ranks_starts_new_random_numbers():
    threes = data.embedded().only([3])
    trainer, other = (Trainer(replace(Config(), **SETTINGS), threes) for _ in range(2))
    state = trainer.state_dict()
    assert trainer.load_state_dict(state)
    other.iteration = state["iteration"] = 5
    assert not other.load_state_dict(state | {"random": state["random"].repeat(2, 1)})
    assert other.random.initial_seed() == 5


# --- failures ----------------------------------------------------------------------------------------------------


def test_what_rank_0_refuses_ends_the_others_in_silence_and_a_rank_that_is_gone_is_missed_at_once(tmp_path):
    first, second = on_ranks(2, tmp_path, refused)
    assert second == ["EndedElsewhere: 1", "EndedElsewhere: 1"]
    *first, (message, waited) = first
    assert first == ["UsageError: no", "UsageError: no"]
    assert re.fullmatch(r"another rank has ended or does not answer \(.*(closed|reset) by peer.*\)", message)
    assert waited < 5


def test_a_rank_that_hangs_is_missed_after_the_timeout(tmp_path):
    (message, waited), _ = on_ranks(2, tmp_path, hanging, 10, timeout=6.0)
    assert re.fullmatch(r"another rank has ended or does not answer \(Timed out.*\)", message)
    assert 5 < waited < 9.5


def test_without_torchrun_there_is_one_rank():
    with distributed.session():
        assert (distributed.rank(), distributed.size()) == (0, 1)
        assert distributed.anyone(True, False) == (True, False)
        assert distributed.gather(torch.ones(2)).shape == (1, 2)


# --- torchrun, with the script -----------------------------------------------------------------------------------

SCRIPT = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from wgan_kernels.training import report, run
from wgan_kernels.training.cli import main
from wgan_kernels.training.trainer import Trainer

run.EVALUATED = 50
report.save_curves = lambda *arguments: None
iterate = Trainer.iterate

def killed(self, *arguments):
    first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if os.environ.get("KILLED_AT") == str(self.iteration) and os.environ["RANK"] == "1" and first_time:
        os.kill(os.getpid(), signal.SIGKILL)
    return iterate(self, *arguments)

Trainer.iterate = killed
sys.exit(main())
"""
FLAGS = "--batch-size 4 --n-critic 2 --latent 8 --log-every 2 --sample-every 5 --eval-every 10 --checkpoint-every 5"
SMALL = ["--digits", "3", "--device", "cpu", *FLAGS.split()]


@contextmanager
def torchrun(folder, *arguments, restarts=0, **environment):
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    process = subprocess.Popen(
        [sys.executable, *launch, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"} | environment,
        cwd=folder,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()  # it ends its ranks


def finished(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 12 iterations that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    with torchrun(folder, *SMALL, "--iterations", 12, "--out", "run") as process:
        return folder / "run", *finished(process)


def test_rank_0_alone_writes_and_talks(whole):
    out, status, text, errors = whole
    assert status == 0, errors
    assert text.count("12 iterations on cpu in 2 processes, 1010 images") == 1
    assert text.count("classifier-FID") == 1
    assert [path.name for path in sorted((out / "samples").iterdir())] == [f"{n:06d}.png" for n in (0, 5, 10, 12)]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [2, 4, 6, 8, 10, 12]
    state, _ = checkpoint.newest(out / "checkpoints")
    assert state["trainer"]["iteration"] == 12
    assert len(state["trainer"]["random"]) == 2


def test_a_killed_rank_ends_all_with_a_message(tmp_path):
    started = time.monotonic()
    with torchrun(tmp_path, *SMALL, "--iterations", 12, "--out", "run", KILLED_AT="7") as process:
        status, _, errors = finished(process)
    assert status != 0
    assert "error: another rank has ended or does not answer" in errors
    assert re.search(r"rank +: 1 .*\n +exitcode +: -9 .*SIGKILL", errors)  # torchrun's report
    assert "[rank0]: Traceback" not in errors
    assert time.monotonic() - started < 60
    state, damaged = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert (state["trainer"]["iteration"], damaged) == (5, [])


def test_a_restart_goes_on_from_the_checkpoint_as_if_nothing_had_happened(tmp_path, whole):
    with torchrun(tmp_path, *SMALL, "--iterations", 12, "--out", "run", restarts=1, KILLED_AT="7") as process:
        status, text, errors = finished(process)
    assert status == 0, errors
    assert "12 iterations from iteration 5 on cpu in 2 processes" in text
    states = [checkpoint.newest(out / "checkpoints")[0]["trainer"] for out in (whole[0], tmp_path / "run")]
    expected, actual = map(tensors, states)
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))


def test_sigterm_saves_once_and_a_run_goes_on_with_another_number_of_processes(tmp_path, capsys):
    arguments = [*SMALL, "--iterations", 10**6, "--checkpoint-every", 10**6, "--out", "run"]
    with torchrun(tmp_path, *arguments) as process:
        for line in process.stdout:
            if re.match(r"\d+/1000000", line):
                process.send_signal(signal.SIGTERM)
                break
        _, text, _ = finished(process)
    assert text.count("stopping") == 1
    (done,) = map(int, re.findall(r"saved at iteration (\d+); go on with: torchrun --nproc-per-node 2 ", text))
    out = tmp_path / "run"
    assert checkpoint.newest(out / "checkpoints")[0]["trainer"]["iteration"] == done
    assert main(["--out", str(out), "--resume", "--iterations", str(done + 1)]) == 0
    text = capsys.readouterr().out
    assert f"from iteration {done} on cpu" in text
    assert "number of processes than before: the random numbers start anew" in text


# --- what the command line makes of torchrun's environment -------------------------------------------------------


@pytest.fixture
def restarted(tmp_path, monkeypatch):
    """The folder of a run that the torchrun of this test began and that failed; no process is started for it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    state = {"config": replace(Config(), **SETTINGS, out=out).to_plain(), "job": distributed.job()}
    checkpoint.save(out / "checkpoints", 5, state, keep=1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    return out


def test_a_restart_resumes_what_its_own_torchrun_began(restarted, monkeypatch):
    asked = ["--out", str(restarted), "--batch-size", "4"]
    assert parse(asked).resume
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not parse(asked).resume
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not parse(asked).resume  # somebody else's run in a folder that the first start refused


def test_a_restart_without_a_checkpoint_starts_anew(restarted):
    for path in (restarted / "checkpoints").iterdir():
        path.unlink()
    assert not parse(["--out", str(restarted)]).resume


def test_restarts_need_a_named_folder(restarted):
    with pytest.raises(UsageError, match="torchrun --max-restarts: add --out"):
        parse([])


def test_each_process_takes_the_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "local_rank", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    take_own_gpu("cpu")
    assert taken == []
    take_own_gpu("cuda")
    assert taken == [1]
    with pytest.raises(UsageError, match=r"--device cuda:0: .* leave the number out: --device cuda"):
        take_own_gpu("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="--nproc-per-node: this machine has 1 GPUs"):
        take_own_gpu("cuda")
