"""Steps recorded and replayed: what is copied, what is read anew, and when a recording no longer holds.

The graph itself is a stand-in, which leaves no trace when it records and runs the step again when it replays; the same
on a GPU, with graphs, is in test_cuda_graphs.py.
"""

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch
from labelled import CLASSES, Embedded
from torch import nn

import wgan_kernels as wk
from wgan_kernels import _capture
from wgan_kernels._capture import Captured

BATCH = 6


def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)).double()


@pytest.fixture
def recorded(monkeypatch):
    """How often something was recorded."""
    count = []

    def record(function, generators, stream):
        optimizer = next(cell.cell_contents for cell in function.__closure__ if hasattr(cell.cell_contents, "groups"))
        params = [param for group in optimizer.groups for param in group["params"]]
        before = copy.deepcopy([param.data for param in params]), torch.get_rng_state()
        states = copy.deepcopy([_states(param) for param in params])
        result = function()
        for param, value, state in zip(params, before[0], states, strict=True):
            param.data.copy_(value)
            for now, then in zip(_states(param), state, strict=True):
                now.copy_(then)
        torch.set_rng_state(before[1])
        grads = [param.grad for param in params]
        count.append(result)

        def replay():
            result.copy_(function())
            for param, grad in zip(params, grads, strict=True):
                if grad is not None:
                    grad.copy_(param.grad)

        return replay, result

    def _states(param):
        return [value for optimizer in OPTIMIZERS for value in optimizer.state.get(param, {}).values()]

    monkeypatch.setattr(_capture, "record", record)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    OPTIMIZERS.clear()
    return count


OPTIMIZERS = []


def captured_step(make=wk.optim.Adam, of=critic, **settings):
    """(the captured step, the plain one) of equal critics."""
    steps = []
    for kind in (wk.CriticStep, wk.reference.CriticStep):
        net = of()
        optimizer = make(net.parameters(), lr=0.01, **settings)
        steps.append(kind(net, optimizer, tune=False))
    ours = steps[0]
    OPTIMIZERS.append(ours.optimizer)
    return ours, Captured(ours._gradients, [ours.critic], ours.optimizer), steps[1]


def assert_same(ours, captured, spec, *shapes, seed=0, condition=lambda rows: ()):
    for k, rows in enumerate(shapes):
        torch.manual_seed(seed + k)
        samples = *torch.randn(2, rows, 4).double(), *condition(rows)
        torch.manual_seed(seed + k)
        actual = captured(*samples)
        torch.manual_seed(seed + k)
        expected = spec(*samples)
        assert set(actual) == set(expected)
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name])
        for param, other in zip(ours.critic.parameters(), spec.critic.parameters(), strict=True):
            torch.testing.assert_close(param, other)
            assert (param.grad is None) == (other.grad is None)
            if param.grad is not None:
                torch.testing.assert_close(param.grad, other.grad)


def test_replays_are_steps(recorded):
    """Batches of two sizes in turn, a learning rate that changes: the last batch of an epoch, a scheduler."""
    ours, captured, spec = captured_step()
    assert_same(ours, captured, spec, *[BATCH] * 5)
    assert len(recorded) == 1
    for k in range(3):
        for step in (ours, spec):
            step.optimizer.param_groups[0]["lr"] = 0.1 / (k + 1)
        assert_same(ours, captured, spec, BATCH, 3, BATCH, seed=7 * k)
        assert ours.optimizer.param_groups[0]["lr"] == 0.1 / (k + 1)
    assert len(recorded) == 2
    assert captured.said() == [f"inputs [[{rows}, 4], [{rows}, 4]]: a CUDA graph" for rows in (BATCH, 3)]


def conditional():
    torch.manual_seed(0)
    return Embedded(nn.Tanh).double()


def test_labels_are_others_in_every_step(recorded):
    ours, captured, spec = captured_step(of=conditional)
    ours._conditions = 1  # as a call of its own would say
    ours._trace()
    assert_same(ours, captured, spec, *[BATCH] * 5, 3, condition=lambda rows: [torch.randint(0, CLASSES, (rows,))])
    assert len(recorded) == 1 and "pushforward" in ours.plan


def test_a_tensor_as_learning_rate(recorded):
    ours, captured, spec = captured_step()
    rate = ours.optimizer.param_groups[0]["lr"] = torch.tensor(0.01)
    assert_same(ours, captured, spec, *[BATCH] * 4)
    rate.fill_(0.2)
    spec.optimizer.param_groups[0]["lr"] = 0.2
    assert_same(ours, captured, spec, *[BATCH] * 2, seed=5)
    assert len(recorded) == 1 and ours.optimizer.param_groups[0]["lr"] is rate


def test_results_are_the_callers(recorded):
    _, captured, _ = captured_step()
    real, fake = torch.randn(2, BATCH, 4).double()
    results = [captured(real, fake) for _ in range(6)]
    losses = [result["loss"].item() for result in results]
    assert len(set(losses)) == 6 and recorded


CHANGES = {
    "another state of the optimizer": lambda step: step.optimizer.load_state_dict(
        copy.deepcopy(step.optimizer.state_dict())
    ),
    "another mode": lambda step: step.critic.eval(),
    "a frozen layer": lambda step: step.critic[0].requires_grad_(False),
    "another setting": lambda step: step.optimizer.param_groups[0].update(eps=1e-3),
    "other parameters": lambda step: setattr(step.critic[0].weight, "data", step.critic[0].weight.data.clone()),
    "a hook of the optimizer": lambda step: step.optimizer.register_step_post_hook(lambda *_: None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_recording_after(change, recorded):
    ours, captured, spec = captured_step()
    assert_same(ours, captured, spec, *[BATCH] * 4)
    for step in (ours, spec):
        step.optimizer.zero_grad()
        change(step)
    assert_same(ours, captured, spec, *[BATCH] * 4, seed=9)
    assert len(recorded) == 2


@pytest.mark.parametrize("hooked", [False, True])
def test_a_step_that_cannot_be_recorded_is_made_outside(hooked, recorded):
    ours, captured, spec = captured_step(wk.optim.Adam if hooked else torch.optim.Adam)
    seen = []
    if hooked:
        ours.optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    assert_same(ours, captured, spec, *[BATCH] * 5)
    assert len(recorded) == 1 and len(seen) == 5 * hooked


def test_what_cannot_be_recorded_runs_as_it_is(monkeypatch, recorded):
    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(_capture, "record", fail)
    ours, captured, spec = captured_step()
    assert_same(ours, captured, spec, *[BATCH] * 5)
    assert captured.said() == ["no CUDA graph: operation not permitted when stream is capturing"]
    assert ours.optimizer.param_groups[0]["lr"] == 0.01


def test_another_backend_is_another_recording(recorded):
    ours, captured, spec = captured_step()
    assert_same(ours, captured, spec, *[BATCH] * 4)
    with wk.use_backend("reference"):
        assert_same(ours, captured, spec, *[BATCH] * 3, seed=4)
    assert len(recorded) == 2


def test_a_plain_step_before_each_recording(recorded):
    """In which kernels are compiled; the first of all makes the optimizer's state, and counts for nothing."""
    ours, captured, spec = captured_step()
    counts = []
    for rows in (6, 6, 6, 6, 3, 3, 6, 3):
        assert_same(ours, captured, spec, rows)
        counts.append(len(recorded))
    assert counts == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_rate_in_other_memory_is_copied():
    rate = torch.tensor(0.1)
    assert _capture._on(rate.device, rate) is rate
    assert _capture._on(torch.device("meta"), rate).is_meta and _capture._on(rate.device, 0.1) == rate


class Cuda:
    """torch.cuda as far as a recording needs it: what happens to it, in order."""

    def __init__(self):
        self.events, self.capturing, self.current = [], False, "here"

    def CUDAGraph(self):
        return SimpleNamespace(
            replay="replay", register_generator_state=lambda generator: self.events.append(generator)
        )

    def graph_pool_handle(self):
        return f"pool {len(self.events)}"

    def current_stream(self, device):
        return self.current

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        """As torch's: where the capture fails, neither its stream is left nor its pool closed."""
        before, self.current, self.capturing = self.current, stream, True
        self.events.append(f"open {pool}")
        yield
        self.current, self.capturing = before, False
        self.events.append(f"close {pool}")

    def close(self, device, pool):
        self.events.append(f"close {pool}")


@pytest.fixture
def cuda(monkeypatch):
    stand_in = Cuda()
    for name in ("CUDAGraph", "graph_pool_handle", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(stand_in, name))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", stand_in.close, raising=False)
    return stand_in


STREAM = SimpleNamespace(device=torch.device("cpu"), device_index=0)


def test_a_recording(cuda):
    assert _capture.record(lambda: 7, ["random"], STREAM) == ("replay", 7)
    assert cuda.events == ["random", "open pool 0", "close pool 0"] and cuda.current == "here"


def test_a_recording_that_fails_leaves_all_as_it_was(cuda):
    def fail():
        assert cuda.capturing
        raise RuntimeError("operation not permitted")

    with pytest.raises(RuntimeError, match="operation not permitted"):
        _capture.record(fail, ["random"], STREAM)
    assert cuda.events == ["random", "open pool 0", "close pool 0", "random", "open pool 3", "close pool 3"]
    assert cuda.current == "here" and not cuda.capturing


def test_casts_stay_within_a_recording(cuda):
    """Of the weights, which autocast keeps: a replay casts anew, and what it has cast is its own."""
    weight, x, seen = torch.randn(3, 3, requires_grad=True), torch.randn(2, 3), []

    def cast():
        seen.append((x @ weight).grad_fn.next_functions[1][0])

    with torch.autocast("cpu", torch.bfloat16):
        cast(), cast(), _capture.record(cast, [], STREAM), cast()
    assert seen[0] is seen[1] and len(set(seen)) == 3


def test_the_critics_gradients_are_not_the_generators(recorded):
    torch.manual_seed(1)
    net, generator = critic(), nn.Linear(3, 4).double()
    optimizer = wk.optim.Adam(generator.parameters(), lr=0.01)
    OPTIMIZERS.append(optimizer)
    step = wk.GeneratorStep(generator, net, optimizer, tune=False)
    net.requires_grad_(False)
    for _ in range(5):
        for param in net.parameters():
            param.grad = torch.full_like(param, 3.0)
        step._captured(torch.randn(BATCH, 3).double())
    assert recorded and all((param.grad == 3).all() for param in net.parameters())
