"""Baselines in other processes: the protocol, the layouts, and that nobody is timed who is wrong."""

import json
import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parent.parent

pytest.importorskip("tyro")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")
numpy = pytest.importorskip("numpy")


def linear_critic():
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 6, 1))


@pytest.fixture
def bench(monkeypatch):
    """The benchmarks with one peer, ``fake_peer.py`` under the name of jax, and one case that it can answer."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    import benchmarks.cases
    from benchmarks import contenders, session
    from benchmarks.cases import gradient_penalty
    from benchmarks.peers import process

    for speeds in ("copy_bandwidth", "product_rate"):  # seconds, and not the question here
        monkeypatch.setattr(session, speeds, lambda settings: {})
    for module in (contenders, process):
        monkeypatch.setattr(module, "PROCESSES", {"jax": "python_tests.fake_peer"})
    case = gradient_penalty.case("linear", linear_critic, 3, 2, 4, 6)
    monkeypatch.setattr(benchmarks.cases, "CASES", (case,))
    return case


def run(path, *more):
    from benchmarks.__main__ import main

    code = main(["run", "gradient_penalty", "--repeat", "3", "--peers", "eager", "jax", "--json", str(path), *more])
    record = json.loads(path.read_text())
    return code, record, record["results"][0]


def test_a_peer_is_checked_then_timed_in_its_turn(bench, tmp_path, capsys):
    code, record, result = run(tmp_path / "a.json", "--threads", "1")
    assert code == 0 and result["status"] == "green" and not result["skipped"]
    assert record["peers"] == {"jax": {"fake": "1.0", "threads": "1"}}
    (row,) = [row for row in result["rows"] if row["contender"] == "jax"]
    assert row["role"] == "baseline" and len(row["samples_s"]) == 3 and min(row["samples_s"]) > 0
    assert row["times_ours"]["median"] > 0 and row["peak_bytes"] is None
    assert "jax" in capsys.readouterr().out


def test_a_peer_with_wrong_gradients_makes_the_case_red(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_PEER_FACTOR", "1.01")
    code, _, result = run(tmp_path / "a.json")
    assert code == 1 and result["status"] == "red" and result["rows"] == []
    (fault,) = result["faults"]
    assert fault["contender"] == "jax" and "away from the reference" in fault["fault"]
    assert "WRONG" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_listed(bench, tmp_path, monkeypatch, capsys):
    from benchmarks.peers import process

    monkeypatch.setattr(process, "PROCESSES", {"jax": "a_module_that_nobody_has"})
    code, record, result = run(tmp_path / "a.json")
    assert code == 0 and record["peers"] == {}
    (skipped,) = result["skipped"]
    assert skipped["contender"] == "jax" and skipped["reason"].startswith("not installed: ")
    assert [row["contender"] for row in result["rows"]][:2] == ["wgan_kernels", "eager"]
    assert "not timed: jax in gradient_penalty/linear: not installed" in capsys.readouterr().out


def test_a_peer_that_dies_is_listed_with_its_last_words(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_PEER_DIES", "1")
    code, _, result = run(tmp_path / "a.json")
    (skipped,) = result["skipped"]
    assert code == 0 and skipped["contender"] == "jax" and "out of memory" in skipped["reason"]


def test_a_peer_under_an_interpreter_that_is_not_there(bench, tmp_path):
    code, _, result = run(tmp_path / "a.json", "--python", f"jax={tmp_path}/no/python")
    assert code == 0 and "cannot start" in result["skipped"][0]["reason"]


@pytest.mark.parametrize("word", ["jax", "jax=", "tea=/bin/python"])
def test_a_wrong_interpreter_flag_is_one_line(bench, tmp_path, capsys, word):
    from benchmarks.__main__ import main

    assert main(["run", "gradient_penalty", "--python", word]) == 2
    assert "expected PEER=PATH" in capsys.readouterr().err


def test_what_a_peer_cannot_do_is_one_line_and_it_lives_on(bench):
    from benchmarks.peers.process import Peer, PeerError

    peer = Peer("python_tests.fake_peer", sys.executable, 1)
    try:
        critic, real, fake, eps = bench.make(torch.device("cpu"), torch.float32)

        def another_task(*inputs):
            task, arrays = bench.told(*inputs)
            return task | {"name": "iteration"}, arrays

        with pytest.raises(PeerError, match=r"^NotImplementedError: no iteration here$"):
            peer.answer(another_task, critic, real, fake, eps)
        assert len(peer.answer(bench.told, critic, real, fake, eps)) == 3
        assert peer.time(2) > 0
        peer.answer(bench.told, critic, real, fake, eps)  # the same task: it may have been compiled, and is not again
        peer.log.seek(0)
        assert peer.log.read().count(b"built") == 1
    finally:
        peer.close()
    assert peer.process.returncode == 0


def test_ctrl_c_while_an_answer_is_awaited_leaves_nothing_to_wait_for(monkeypatch):
    """However early: the thread that would end a late answer may just have started."""
    from benchmarks.peers import process

    class Interrupted(threading.Timer):
        def start(self):
            super().start()
            raise KeyboardInterrupt

    monkeypatch.setattr(process.threading, "Timer", Interrupted)
    before = threading.enumerate()
    peer = process.Process("json.tool")
    with pytest.raises(KeyboardInterrupt):
        peer.hear()
    peer.close()
    left = set(threading.enumerate()) - set(before)
    assert all(thread.finished.is_set() for thread in left)


def test_half_precision_is_not_asked_of_peers(bench, tmp_path):
    _, _, result = run(tmp_path / "a.json", "--dtype", "bfloat16")
    assert result["skipped"] == [{"contender": "jax", "reason": "asked for float32 on the CPU alone"}]


# --- the layouts: the same functions, channels last and mirrored -----------------------------------------------------
def networks():
    from benchmarks.networks import (
        dcgan_critic,
        digits_generator,
        s0_critic,
        s3_batch_norm_critic,
        s3_layer_norm_critic,
    )

    return {
        "s0": (s0_critic, (1, 28, 28)),
        "s3-layer-norm": (s3_layer_norm_critic, (1, 28, 28)),
        "s3-batch-norm": (s3_batch_norm_critic, (1, 28, 28)),
        "dcgan64": (dcgan_critic, (3, 64, 64)),
        "generator": (partial(digits_generator, 5), (5,)),
    }


def by_description(layers, parameters, x):
    """The described network on [B, H, W, C], by PyTorch, with ``padding="same"`` as TensorFlow and JAX have it."""
    parameters = iter(torch.from_numpy(array) for array in parameters)
    for layer in layers:
        kind = layer["kind"]
        if kind == "Linear":
            x = x @ next(parameters) + next(parameters)
        elif kind == "Conv2d":
            before = after = 0
            if layer["padding"]:
                pixels = -(-x.shape[1] // layer["stride"])
                missing = (pixels - 1) * layer["stride"] + layer["kernel"] - x.shape[1]
                before, after = missing // 2, missing - missing // 2
            padded = F.pad(x.permute(0, 3, 1, 2), (before, after, before, after))
            weight = next(parameters).permute(3, 2, 0, 1)
            x = F.conv2d(padded, weight, next(parameters), layer["stride"]).permute(0, 2, 3, 1)
        elif kind == "ConvTranspose2d":
            weight = next(parameters).permute(3, 2, 0, 1)
            x = F.conv_transpose2d(x.permute(0, 3, 1, 2), weight, next(parameters), layer["stride"], 1)
            x = x.permute(0, 2, 3, 1)
        elif kind == "BatchNorm2d":
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2), unbiased=False)
            x = (x - mean) / (variance + layer["eps"]).sqrt() * next(parameters) + next(parameters)
        elif kind == "LayerNorm":
            x = F.layer_norm(x, x.shape[1:], next(parameters), next(parameters), layer["eps"])
        elif kind == "LeakyReLU":
            x = F.leaky_relu(x, layer["slope"])
        elif kind == "Tanh":
            x = x.tanh()
        elif kind == "Flatten":
            x = x.reshape(len(x), -1)
        elif kind == "Unflatten":
            channels, height, width = layer["shape"]
            x = x.reshape(len(x), height, width, channels)
    return x


@pytest.mark.parametrize("name", ["s0", "s3-layer-norm", "s3-batch-norm", "dcgan64", "generator"])
def test_a_described_network_is_the_same_function(name):
    from benchmarks.networks import describe
    from benchmarks.peers import layout

    torch.manual_seed(0)
    make, shape = networks()[name]
    network, x = make().double(), torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        for param in network.parameters():  # norms begin with ones and zeros, which any order would do for
            param.add_(0.3 * torch.randn_like(param))
    layers, arrays = describe(network, *shape), [param.detach().numpy() for param in network.parameters()]
    ways = list(layout.parameters(layers, [array.shape for array in arrays]))
    there = [way.there(array) for way, array in zip(ways, arrays, strict=True)]
    with torch.no_grad():
        expected = network(x).numpy()
        found = by_description(layers, there, torch.from_numpy(layout.samples(x.shape).there(x.numpy()))).numpy()
    if found.ndim == 4:
        found = layout.samples(expected.shape).back(found, expected.shape)
    numpy.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    for way, array, other in zip(ways, arrays, there, strict=True):
        numpy.testing.assert_array_equal(way.back(other, array.shape), array)


def test_operations_are_counted_as_the_passes_do_them():
    """Beside what PyTorch's own counter sees of the plain loop: its double backward does no fewer."""
    from torch.utils.flop_counter import FlopCounterMode

    import wgan_kernels as wk
    from benchmarks.networks import operations, s0_critic, s3_layer_norm_critic

    critic = s0_critic()
    real, fake = torch.randn(2, 4, 1, 28, 28)
    with FlopCounterMode(display=False) as forward:
        critic(real)
    assert operations(critic, 1, 28, 28, forward=4) == forward.get_total_flops()
    with FlopCounterMode(display=False) as both:
        (critic(fake).mean() - critic(real).mean()).backward()
    assert operations(critic, 1, 28, 28, backward=8) == both.get_total_flops()
    first, _, second, _, _, last = critic  # as a function: the counter's module hooks do not bear a double backward
    layers = [(layer.weight, layer.bias) for layer in (first, second, last)]

    def function(x):
        for weight, bias in layers[:2]:
            x = F.leaky_relu(F.conv2d(x, weight, bias, 2, 1), 0.2)
        return F.linear(x.flatten(1), *layers[2])

    with FlopCounterMode(display=False) as penalised:
        wk.reference.gradient_penalty(function, real, fake).backward()
    assert operations(critic, 1, 28, 28, penalty=4) <= penalised.get_total_flops()
    curved = s3_layer_norm_critic()
    straight = nn.Sequential(*(layer for layer in curved if not isinstance(layer, nn.LayerNorm)))
    assert operations(curved, 1, 28, 28, penalty=4) > operations(straight, 1, 28, 28, penalty=4)


# --- the gate of whole updates ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["critic_step/mlp/64x784", "critic_step/tiny/1x2"])
def test_the_gate_of_an_update_judges_at_the_contenders_own_eps(name):
    """In float64 the same seed draws another ε: once the gate compared with that, and let a wrong weight pass."""
    import wgan_kernels as wk
    from benchmarks import gate
    from benchmarks.cases import critic_step, find

    (case,) = find([name])
    torch.manual_seed(0)
    inputs = case.make(torch.device("cpu"), torch.float32)
    for contender in ("wgan_kernels", "drop-in", "eager"):
        assert gate.fault(case, case.contenders[contender], inputs) is None
    heavier = critic_step.update(
        "heavier", lambda critic: wk.CriticStep(critic, wk.optim.Adam(critic.parameters()), weight=10.2)
    )
    assert "away from the reference" in gate.fault(case, heavier, inputs)
    unpenalised, reference = case.units["without penalty"]
    assert gate.fault(case, unpenalised, inputs, reference) is None
    assert gate.fault(case, unpenalised, inputs)


def test_an_iteration_leaves_what_the_reference_leaves():
    from benchmarks import gate
    from benchmarks.cases import iteration
    from benchmarks.networks import s3_critic

    case = iteration.case("s3", s3_critic, 8, batch=2)
    torch.manual_seed(0)
    inputs = case.make(torch.device("cpu"), torch.float32)
    for contender in ("wgan_kernels", "drop-in", "eager"):
        assert gate.fault(case, case.contenders[contender], inputs) is None
    forgets_one = lambda networks, real, latent: case.contenders["eager"](networks, real[:-1], latent)  # noqa: E731
    assert "away from the reference" in gate.fault(case, forgets_one, inputs)


ASK = pytest.mark.skipif("PEERS" not in os.environ, reason="set PEERS='jax=…/python keras=…/python' to run them")


@pytest.mark.parametrize("name", ["plain", pytest.param("jax", marks=ASK), pytest.param("keras", marks=ASK)])
def test_the_real_peers_agree(name):
    from benchmarks import gate
    from benchmarks.cases import find, iteration, iteration_clipped
    from benchmarks.networks import s0_batch_norm_critic, s3_batch_norm_critic, s3_layer_norm_critic
    from benchmarks.peers.process import Peers

    pythons = dict(pair.split("=") for pair in os.environ.get("PEERS", "").split())
    cases = [case for case in find(["gradient_penalty", "critic_step"]) if case.told]
    cases += [
        iteration.case("s3", s3_layer_norm_critic, 8, batch=8),
        *(
            iteration_clipped.case(name, critic, 8, losses, clipped, samples=4, batch=8)
            for name, critic, losses, clipped in (
                ("s0", s0_batch_norm_critic, iteration_clipped.IN_TURN, iteration_clipped.kernels),
                ("s3", s3_batch_norm_critic, iteration_clipped.JOINTLY, iteration_clipped.everything),
            )
        ),
    ]
    with Peers(1, pythons) as peers:
        for case in cases:
            torch.manual_seed(0)
            inputs = case.make(torch.device("cpu"), torch.float32)
            assert gate.fault(case, partial(peers.start(name).answer, case.told), inputs) is None, case.name
