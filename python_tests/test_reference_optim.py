"""The specification of the optimizers: torch's own step, then the clip, with interchangeable states."""

import copy

import pytest
import torch
from torch import nn

from wgan_kernels import reference

PAIRS = [
    (reference.optim.RMSprop, torch.optim.RMSprop, {"lr": 1e-2, "momentum": 0.5, "centered": True}),
    (reference.optim.RMSprop, torch.optim.RMSprop, {"lr": 1e-2, "weight_decay": 0.1}),
    (reference.optim.Adam, torch.optim.Adam, {"lr": 1e-2, "betas": (0.5, 0.9)}),
]


def train(net, optimizer, steps, after=lambda: None):
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
        after()


@pytest.mark.parametrize(("ours", "theirs", "settings"), PAIRS)
@pytest.mark.parametrize("clip", [None, 0.2])
def test_equals_torch_and_a_loop_of_clamps(ours, theirs, settings, clip):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    twin = copy.deepcopy(net)

    def clamp():
        with torch.no_grad():
            for p in twin.parameters():
                if clip is not None:
                    p.clamp_(-clip, clip)

    train(net, ours(net.parameters(), **settings, clip=clip), 20)
    train(twin, theirs(twin.parameters(), **settings), 20, clamp)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(("ours", "theirs", "settings"), PAIRS)
def test_states_interchange_with_torch(ours, theirs, settings):
    net = nn.Linear(3, 1).double()
    mine = ours(net.parameters(), **settings, clip=0.3)
    train(net, mine, 3)
    other = theirs(net.parameters(), **settings)
    other.load_state_dict(mine.state_dict())
    back = ours(net.parameters(), **settings, clip=0.1)
    back.load_state_dict(theirs(net.parameters(), **settings).state_dict())
    train(net, back, 1)
    assert all(p.abs().max() <= 0.1 for p in net.parameters())


def test_groups_have_clips_of_their_own():
    a, b = (nn.Parameter(torch.full((2,), 5.0)) for _ in range(2))
    optimizer = reference.optim.RMSprop([{"params": [a], "clip": 0.5}, {"params": [b]}], lr=0.0, clip=1.0)
    (a.sum() + b.sum()).backward()
    optimizer.step()
    assert a.tolist() == [0.5, 0.5] and b.tolist() == [1.0, 1.0]
