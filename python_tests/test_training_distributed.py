"""wgan_kernels.training.distributed: N processes are one with the joined batch, and miss one that is gone."""

import copy
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranks import free_port, on_ranks
from small_runs import flat
from torch import nn

import wgan_kernels as wk
from wgan_kernels.training import data, distributed, models
from wgan_kernels.training.config import Config
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.presets import COMPACT
from wgan_kernels.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs Gloo")

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
    states = [flat(state) for rank in ranks for state in rank[method][1:]]
    assert len(states[0]) > 40
    for state in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], state, strict=True))
    random = ranks[0][method][1]["random"]
    assert len({bytes(state.tolist()) for state in random}) == len(random) == len(ranks)
    shards = [rank[method][0][1] for rank in ranks]
    assert sum(map(len, shards)) == 1010
    assert torch.equal(torch.cat(shards).sum(0, dtype=torch.int64), data.embedded().only([3]).images.sum(0))


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


LEFT = """
import os
from wgan_kernels.training import distributed

def threads():
    return [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]

with distributed.session():
    import torch._dynamo  # as every torch.compile does: it imports functions whose defaults are the group
    assert "pt_gloo_runloop\\n" in threads()
assert "pt_gloo_runloop\\n" not in threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads a process's threads from /proc")
def test_no_thread_of_gloo_outlives_a_session(tmp_path):
    """One that still held a tensor when Python ended aborted its process, once in a few runs under torchrun."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    done = subprocess.run([sys.executable, "-c", LEFT], env=os.environ | alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_torchrun_there_is_one_rank():
    with distributed.session():
        assert (distributed.rank(), distributed.size()) == (0, 1)
        assert distributed.anyone(True, False) == (True, False)
        assert distributed.gather(torch.ones(2)).shape == (1, 2)
