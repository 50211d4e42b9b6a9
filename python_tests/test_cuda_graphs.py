"""Every op within a CUDA graph, and whole steps as one: replays read what memory holds then, and draw anew."""

import pytest
import torch
from cases import on_cuda
from optimizers import OPTIMIZERS
from torch import nn

import wgan_kernels as wk
from wgan_kernels import reference


def captured(backend, function):
    """A graph of one call, after two calls on a side stream as torch's manual asks; the calls count."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with wk.use_backend(backend):
        with torch.cuda.stream(stream):
            for _ in range(2):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function()
    return graph, result


@on_cuda
def test_clip(backend, device):
    params = [torch.full((n,), 2.0, device=device) for n in (1, 5000, 3)]
    graph, _ = captured(backend, lambda: wk.clip_(params, 0.5))
    for param in params:
        param.fill_(3.0)
    graph.replay()
    assert [param.unique().tolist() for param in params] == [[0.5]] * 3


@on_cuda
def test_clip_of_a_list_seen_first_while_capturing(backend, device):
    params = [torch.full((n,), 2.0, device=device) for n in (7, 100)]
    graph = torch.cuda.CUDAGraph()
    with wk.use_backend(backend):
        wk.clip_([torch.ones(3, device=device)], 1.0)  # the kernel is compiled and loaded
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            wk.clip_(params, 0.5)
    assert params[0].unique().tolist() == [2.0]
    for _ in range(2):
        for param in params:
            param.fill_(3.0)
        graph.replay()
        assert [param.unique().tolist() for param in params] == [[0.5]] * 2


@on_cuda
def test_interpolate_draws_anew(backend, device):
    real, fake = torch.ones(256, 3, device=device), torch.zeros(256, 3, device=device)
    graph, x_hat = captured(backend, lambda: wk.interpolate(real, fake))
    draws = []
    for _ in range(3):
        graph.replay()
        draws.append(x_hat.clone())
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])
    assert all((draw[:, 0] == draw[:, 1]).all() and draw.min() >= 0 and draw.max() <= 1 for draw in draws)


@on_cuda
def test_penalty_and_loss_with_gradients(backend, device):
    grad = torch.randn(8, 33, device=device, requires_grad=True)
    real, fake = (torch.randn(8, 1, device=device, requires_grad=True) for _ in range(2))

    def both(wk):
        loss = wk.critic_loss(real, fake, wk.gradient_norm_penalty(grad))
        return (loss.detach(), *torch.autograd.grad(loss, (grad, real, fake)))

    graph, results = captured(backend, lambda: both(wk))
    with torch.no_grad():
        for tensor in (grad, real, fake):
            tensor.normal_()
    graph.replay()
    for result, expected in zip(results, both(reference), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


@on_cuda
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_whole_step(name, backend, device):
    """Gradients live in the graph's own memory; the learning rate is changed between replays."""
    ours, _, torchs = OPTIMIZERS[name]
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).to(device)
    twin = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).to(device)
    twin.load_state_dict(net.state_dict())
    lr = torch.tensor(0.01, device=device)
    x = torch.randn(16, 5, device=device)
    optimizer = ours(net.parameters(), lr=lr, clip=0.3)
    other = torchs(twin.parameters(), lr=0.01, **({"betas": (0.0, 0.9)} if name == "adam" else {}))

    def step(net, optimizer):
        optimizer.zero_grad(set_to_none=True)
        net(x).square().mean().backward()
        optimizer.step()

    graph, _ = captured(backend, lambda: step(net, optimizer))
    for _ in range(2):  # the calls before the capture
        step(twin, other)
        reference.clip_(twin, 0.3)
    for k in range(5):
        x.normal_()
        lr.fill_(0.1 / (k + 1))
        other.param_groups[0]["lr"] = 0.1 / (k + 1)
        graph.replay()
        step(twin, other)
        reference.clip_(twin, 0.3)
    for param, expected in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-4, atol=1e-5)
    assert {float(optimizer.state[param]["step"]) for param in net.parameters()} == {7.0}


def networks(device):
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 2 * 16), nn.Unflatten(1, (2, 4, 4)), nn.BatchNorm2d(2), nn.Tanh())
    critic = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.LayerNorm((4, 2, 2)), nn.Flatten(), nn.Linear(16, 1)
    )
    return generator.to(device), critic.to(device)


def updates_beside_the_reference(name, device, **how):
    """Of critic and generator in turn, for two sizes of batches and a learning rate that changes. Returns our steps.

    With an eps at which a gradient that is 0 but for rounding, as that of the norm's bias is, moves nothing.
    """
    ours, spec, _ = OPTIMIZERS[name]
    settings, runs = {"lr": 0.01, "eps": 0.1}, []
    for steps, optimizer in ((wk, ours), (reference, spec)):
        generator, critic = networks(device)
        random = torch.Generator(device)
        critic_step = steps.CriticStep(critic, optimizer(critic.parameters(), **settings), generator=random, **how)
        generator_step = steps.GeneratorStep(generator, critic, optimizer(generator.parameters(), **settings), **how)
        runs.append((generator, critic, random, critic_step, generator_step))
    for k in range(16):
        rows, results = (3 if k % 4 == 3 else 6), []
        for generator, critic, random, critic_step, generator_step in runs:
            torch.manual_seed(k)
            random.manual_seed(k)
            for step in (critic_step, generator_step):
                step.optimizer.param_groups[0]["lr"] = 0.01 / (k + 1)
            real, latent = torch.randn(rows, 2, 4, 4, device=device), torch.randn(rows, 3, device=device)
            metrics = critic_step(real, generator_step.sample(latent))
            results.append((metrics, generator_step(latent), generator.state_dict(), critic.state_dict()))
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)
    return runs[0][-2:]


@on_cuda
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whole_updates_are_replayed(name, backend, device):
    with wk.use_backend(backend):
        for step in updates_beside_the_reference(name, device):
            assert len(step._captured.recordings) == 2 and step._captured.why_not is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_these_updates_agree_without_graphs(name):
    """The test of that test: what it compares does not hang on rounding."""
    updates_beside_the_reference(name, "cpu", tune=False)


class Waiting(nn.Linear):
    """Looks at its result from the host, which no capture allows."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.isfinite().all() else -y


@on_cuda
def test_what_cannot_be_recorded_runs_as_it_is(backend, device):
    """A capture that fails leaves the current stream and the random numbers as they were."""
    critic = nn.Sequential(Waiting(4, 3), nn.LeakyReLU(0.2), nn.Linear(3, 1)).to(device)
    step = wk.CriticStep(critic, wk.optim.Adam(critic.parameters()))
    stream = torch.cuda.current_stream()
    with wk.use_backend(backend):
        for _ in range(7):
            metrics = step(torch.randn(5, 4, device=device), torch.randn(5, 4, device=device))
    assert step._captured.why_not is not None and not step._captured.recordings
    assert metrics["loss"].isfinite() and torch.cuda.current_stream() == stream


@on_cuda
def test_a_learning_rate_in_the_hosts_memory(backend, device):
    """Replays follow it, too."""
    critic, lr = nn.Linear(4, 1).to(device), torch.tensor(0.1)
    step = wk.CriticStep(critic, wk.optim.Adam(critic.parameters(), lr=lr))
    real, fake = torch.randn(2, 5, 4, device=device)
    with wk.use_backend(backend):
        for _ in range(6):
            step(real, fake)
        assert step._captured.recordings
        before = critic.weight.clone()
        step(real, fake)
        assert not torch.equal(critic.weight, before)
        lr.zero_()
        before = critic.weight.clone()
        step(real, fake)
        assert torch.equal(critic.weight, before)
