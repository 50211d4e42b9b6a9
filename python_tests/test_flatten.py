"""Between images and a linear layer nothing is copied where the images are in channels-last memory."""

import copy

import pytest
import torch
from critic_steps import pair
from critics import program_of
from torch import nn

import wgan_kernels as wk
from wgan_kernels.one_pass.flatten import Flatten, Matrix

EXACT = {"rtol": 1e-10, "atol": 1e-12}


class Called(nn.Module):
    """By a function or a method, as a forward of one's own has it."""

    def __init__(self, flatten):
        super().__init__()
        self.convolution, self.linear, self.flatten = nn.Conv2d(2, 6, 3, 2, 1), nn.Linear(6 * 16, 2), flatten

    def forward(self, x):
        return self.linear(self.flatten(torch.relu(self.convolution(x))))


def chain(*behind, convolution=True):
    before = [nn.Conv2d(2, 6, 3, 2, 1), nn.LeakyReLU(0.2)] if convolution else []
    return nn.Sequential(*before, nn.Flatten(), *behind)


CRITICS = {
    "one score": lambda: chain(nn.Linear(96, 1)),
    "three, without a bias": lambda: chain(nn.Linear(96, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)),
    "a weight larger than the images": lambda: chain(nn.Linear(96, 40), nn.ReLU(), nn.Linear(40, 1)),
    "curved behind": lambda: chain(nn.Linear(96, 2), nn.LayerNorm(2), nn.Linear(2, 1)),
    "a norm between": lambda: chain(nn.LayerNorm(96), nn.Linear(96, 1)),
    "nothing before": lambda: chain(nn.Linear(128, 2), nn.LayerNorm(2), nn.Linear(2, 1), convolution=False),
    "flattened twice": lambda: chain(nn.Flatten(), nn.Linear(96, 1)),
    "frozen": lambda: chain(nn.Linear(96, 1).requires_grad_(False)),
    "of pixels alone": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(2), nn.Linear(16, 1)),
    "torch.flatten": lambda: Called(lambda y: torch.flatten(y, 1)),
    "x.flatten": lambda: Called(lambda y: y.flatten(1)),
    "torch.flatten, in full": lambda: Called(lambda y: torch.flatten(y, start_dim=1, end_dim=3)),
}
TURNED = {
    "one score",
    "three, without a bias",
    "curved behind",
    "nothing before",
    "frozen",
    "torch.flatten",
    "x.flatten",
}


@pytest.mark.parametrize("name", CRITICS)
def test_a_penalty(name):
    torch.manual_seed(0)
    one = CRITICS[name]().double()
    two = copy.deepcopy(one)
    real, fake, eps = (
        torch.randn(5, 2, 8, 8).double(),
        torch.randn(5, 2, 8, 8).double(),
        torch.rand(5, 1, 1, 1).double(),
    )
    for critic, penalty in ((one, wk.gradient_penalty), (two, wk.reference.gradient_penalty)):
        penalty(critic, real, fake, eps=eps).backward()
    for param, spec in zip(one.parameters(), two.parameters(), strict=True):
        assert (param.grad is None) == (spec.grad is None)
        if spec.grad is not None:
            torch.testing.assert_close(param.grad, spec.grad, **EXACT)


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("way", ["the program", "the program, in channels-last memory"])
def test_an_update(name, way):
    ours, spec, real, fake = pair(CRITICS[name], (5, 2, 8, 8), tune=True)
    ours.tuned[real.shape] = way
    for step in (ours, spec):
        torch.manual_seed(3)
        step(real, fake)
    for param, expected in zip(ours.critic.parameters(), spec.critic.parameters(), strict=True):
        torch.testing.assert_close(param.grad, expected.grad, **EXACT)


@pytest.mark.parametrize("name", CRITICS)
def test_who_is_turned(name):
    program = program_of(CRITICS[name]())
    x = torch.randn(64, 2, 8, 8).contiguous(memory_format=torch.channels_last)
    if name == "a weight larger than the images":
        x = x[:8]
    nodes = [node for node, _ in program.copied().steps]
    with torch.no_grad():
        for node in nodes:
            before, x = x, node.forward(0, x)
            if isinstance(node, Flatten) and node.is_turned:
                assert x.data_ptr() == before.data_ptr()
    turned = [node for node in nodes if isinstance(node, Matrix) and node.pixels is not None]
    assert bool(turned) is (name in TURNED)


def test_the_next_samples_may_lie_otherwise():
    program = program_of(CRITICS["nothing before"]())
    samples = torch.randn(6, 2, 8, 8)

    @torch.no_grad()
    def gradients(x):
        _, gradient = program.begin(x.clone(memory_format=torch.preserve_format), 0, torch.ones_like)
        received = program.finish(gradient)
        program.forget()
        return received

    rows = gradients(samples)
    for x in (samples.contiguous(memory_format=torch.channels_last), samples):
        for (_, found), (_, expected) in zip(gradients(x), rows, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
