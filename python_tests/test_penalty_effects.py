"""What a critic does beside its scores, in a classifier of its own for instance, is done in their penalty, too."""

import copy

import pytest
import torch
import torch.nn.functional as F
from critics import is_one_node
from test_penalty_states import gradients, left, same
from torch import nn
from torch.nn.utils import parametrizations

import wgan_kernels as wk

CLASSES, BATCH = 3, 4
# How the classes are told, and whether anything is left by it.
CLASSIFIERS = {
    "linear": (lambda: nn.Linear(8, CLASSES), False),
    "layers": (lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Tanh(), nn.Softmax(1)), False),
    "evaluated": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)).eval(), False),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(8, CLASSES)), False),
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, CLASSES)), True),
    "instance norm": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, track_running_stats=True)),
        True,
    ),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, CLASSES)), True),
    "spectral norm by hooks": (lambda: nn.utils.spectral_norm(nn.Linear(8, CLASSES)), True),
    "dropout": (lambda: nn.Sequential(nn.Linear(8, CLASSES), nn.Dropout(0.5)), True),
    "another that draws": (lambda: nn.RReLU(), True),
    "a function": (lambda: F.dropout, True),
    "noise": (lambda: torch.rand_like, True),
}


class Classifying(nn.Module):
    """As AC-GAN's: one trunk, two heads."""

    def __init__(self, classify):
        super().__init__()
        self.trunk, self.score, self.classify = nn.Linear(6, 8), nn.Linear(8, 1), classify

    def forward(self, x):
        h = F.leaky_relu(self.trunk(x), 0.2)
        classes = self.classify(h)
        return self.score(h), classes


class Forgetting(Classifying):
    def forward(self, x):
        h = F.leaky_relu(self.trunk(x), 0.2)
        self.classify(h)
        return self.score(h)


@pytest.mark.parametrize("kind", [Classifying, Forgetting])
@pytest.mark.parametrize(("make", "leaves"), CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_head_that_nobody_reads(kind, make, leaves):
    critic = kind(make()).double()
    twin, x, found = copy.deepcopy(critic), torch.randn(BATCH, 6, dtype=torch.float64), []
    for of, each in ((wk, critic), (wk.reference, twin)):
        scores = (lambda x, each=each: each(x)[0]) if kind is Classifying else each
        torch.manual_seed(2)
        value = of.r1_penalty(scores, x)
        if of is wk:
            assert is_one_node(value) != leaves
        found.append([value.detach(), *gradients(value, each), *left(each)])
    same(*found)


class Labelled(nn.Module):
    def __init__(self, among):
        super().__init__()
        self.emb, self.first, self.last, self.among = nn.Embedding(CLASSES, 8), nn.Linear(6, 8), nn.Linear(16, 1), among

    def forward(self, x, y):
        x = self.among(torch.tanh(self.first(x)))
        return self.last(torch.tanh(torch.cat([x, self.among(self.emb(y))], 1)))


class LabelsFirst(Labelled):
    def forward(self, x, y):
        y = self.among(self.emb(y))
        return self.last(torch.tanh(torch.cat([self.among(torch.tanh(self.first(x))), y], 1)))


@pytest.mark.parametrize("kind", [Labelled, LabelsFirst])
@pytest.mark.parametrize("among", [nn.Dropout(0.4), nn.BatchNorm1d(8)], ids=["dropout", "norm"])
def test_labels_take_their_turn(kind, among):
    critic = kind(among).double()
    twin, y = copy.deepcopy(critic), torch.randint(CLASSES, (BATCH,))
    x, found = torch.randn(BATCH, 6, dtype=torch.float64), []
    for of, each in ((wk, critic), (wk.reference, twin)):
        torch.manual_seed(2)
        value = of.r1_penalty(lambda x, each=each: each(x, y), x)
        if of is wk:
            assert is_one_node(value) == (kind is LabelsFirst)
        found.append([value.detach(), *gradients(value, each), *left(each)])
    same(*found)
