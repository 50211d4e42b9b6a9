"""Penalties of critics whose layers do more at a call than to return a value: draw masks, follow statistics, compute
their weights. All of it is done once a penalty, and the same again where the critic is run again.
"""

import copy
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from critic_steps import with_weights
from critics import critics, is_on_a_kink, is_one_node
from hypothesis import assume, event, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize

import wgan_kernels as wk
from wgan_kernels._dispatch import has_vectors
from wgan_kernels.one_pass import Refused
from wgan_kernels.one_pass.known import known_of

warnings.filterwarnings("ignore", message=".*weight_norm. is deprecated", category=FutureWarning)

VECTOR, IMAGE = (4, 6), (4, 1, 8, 8)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def perceptron(*behind, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(6, 5), *behind, activation(), nn.Linear(5, 4), activation(), nn.Linear(4, 1))


def digits(*behind, activation=lambda: nn.LeakyReLU(0.2)):
    layers = [nn.Conv2d(1, 4, 3, 2, 1), *behind, activation(), nn.Conv2d(4, 3, 3), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, 1))


def spectral(critic):
    return with_weights(parametrizations.spectral_norm, critic)


class Scaled(nn.Module):
    """The equalised learning rate of ProGAN."""

    def forward(self, weight):
        return weight * (2 / weight[0].numel()) ** 0.5


def scaled(layer):
    parametrize.register_parametrization(layer, "weight", Scaled())
    parametrize.register_parametrization(layer, "bias", Scaled())


class Shared(nn.Module):
    """One layer at two places: spectral norm goes on by an iteration at each."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
        self.last = nn.Linear(6, 1)

    def forward(self, x):
        return self.last(F.dropout(torch.relu(self.first(torch.relu(self.first(x)))), 0.4, self.training))


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(64, 1)

    def forward(self, x):
        x = F.dropout2d(F.leaky_relu(self.first(x), 0.2), p=0.3)
        return self.last(F.dropout(x.flatten(1), training=self.training, p=0.5))


CRITICS = {
    "batch norm": (lambda: digits(nn.BatchNorm2d(4)), IMAGE),
    "batch norm, smooth": (lambda: digits(nn.BatchNorm2d(4), activation=nn.Tanh), IMAGE),
    "batch norm, cumulative": (lambda: digits(nn.BatchNorm2d(4, momentum=None)), IMAGE),
    "batch norm without weights": (lambda: digits(nn.BatchNorm2d(4, affine=False)), IMAGE),
    "batch norm that follows nothing": (lambda: digits(nn.BatchNorm2d(4, track_running_stats=False)), IMAGE),
    "the same in evaluation": (lambda: digits(nn.BatchNorm2d(4, track_running_stats=False)).eval(), IMAGE),
    "batch norm of vectors": (lambda: perceptron(nn.BatchNorm1d(5)), VECTOR),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm1d(6), *perceptron()), VECTOR),
    "batch norm frozen": (lambda: digits(nn.BatchNorm2d(4).requires_grad_(False)), IMAGE),
    "dropout": (lambda: digits(nn.Dropout(0.3)), IMAGE),
    "dropout of vectors": (lambda: perceptron(nn.Dropout(0.1)), VECTOR),
    "dropout in place, smooth": (lambda: digits(nn.Dropout(0.3, inplace=True), activation=nn.SiLU), IMAGE),
    "all of it": (lambda: digits(nn.Dropout(1.0)), IMAGE),
    "channels": (lambda: digits(nn.Dropout2d(0.5), nn.Dropout(0.2)), IMAGE),
    "channels in a row": (
        lambda: nn.Sequential(nn.Conv1d(1, 4, 3), nn.Dropout1d(0.2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1)),
        (4, 1, 8),
    ),
    "channels of volumes": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.Dropout3d(0.5), nn.ReLU(), nn.Flatten(), nn.Linear(32, 1)),
        (4, 1, 4, 4, 4),
    ),
    "functions": (Functions, IMAGE),
    "functions in evaluation": (lambda: Functions().eval(), IMAGE),
    "spectral norm": (lambda: spectral(digits()), IMAGE),
    "spectral norm in evaluation": (lambda: spectral(digits()).eval(), IMAGE),
    "spectral norm of vectors": (lambda: spectral(perceptron()), VECTOR),
    "spectral norm, smooth": (lambda: spectral(perceptron(activation=nn.Softplus)), VECTOR),
    "spectral norm of a frozen layer": (lambda: spectral(perceptron(nn.Linear(5, 5).requires_grad_(False))), VECTOR),
    "spectral norm by hooks": (lambda: with_weights(nn.utils.spectral_norm, digits()), IMAGE),
    "weight norm": (lambda: with_weights(parametrizations.weight_norm, digits()), IMAGE),
    "weight norm by hooks": (lambda: with_weights(nn.utils.weight_norm, perceptron()), VECTOR),
    "orthogonal": (lambda: with_weights(parametrizations.orthogonal, perceptron()), VECTOR),
    "one's own": (lambda: with_weights(scaled, digits()), IMAGE),
    "several": (lambda: spectral(digits(nn.BatchNorm2d(4), nn.Dropout(0.2), nn.LeakyReLU(0.2))), IMAGE),
    "a layer called twice": (Shared, VECTOR),
}
# PyTorch has no third derivative of its batch norm, nor one of a norm that is 0.
NO_THIRD = {name for name in CRITICS if "batch norm" in name} | {"the same in evaluation", "several", "all of it"}
every = pytest.mark.parametrize("name", CRITICS)


def pair(name):
    """(critic, x), twice the same."""
    make, shape = CRITICS[name]
    for _ in range(2):
        torch.manual_seed(1)
        yield make().double(), torch.randn(shape, dtype=torch.float64)


def same(ours, theirs, rtol=1e-10, atol=1e-12):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


def left(critic):
    """What a critic has followed, and what is drawn next."""
    return [*(buffer.clone() for buffer in critic.buffers()), torch.rand(2)]


def gradients(value, critic, **how):
    return torch.autograd.grad(value, list(critic.parameters()), allow_unused=True, **how)


def backward_once(of, critic, x):
    wanted = [param for param in critic.parameters() if param.requires_grad]
    value = of.gradient_penalty(critic, x, x.flip(0), eps=torch.linspace(0, 1, len(x), dtype=x.dtype))
    return [value.detach(), *torch.autograd.grad(value, wanted, allow_unused=True)]


@every
def test_as_autograd(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        torch.manual_seed(2)
        if of is wk:
            assert is_one_node(of.r1_penalty(critic, x))
        else:
            of.r1_penalty(critic, x)
        found.append([t for _ in range(3) for t in backward_once(of, critic, x)] + left(critic))
    same(*found)


@every
def test_a_graph_that_was_kept(name):
    """Its second backward runs the critic again, which draws and computes what it did, and follows nothing."""
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        critic.requires_grad_()
        torch.manual_seed(2)
        value = of.r1_penalty(critic, x)
        of.r1_penalty(critic, x)  # which moves everything on
        twice = [*gradients(value, critic, retain_graph=True), *gradients(value, critic, retain_graph=True)]
        graph = [grad if grad is None else grad.detach() for grad in gradients(value, critic, create_graph=True)]
        found.append([*twice, *graph, *left(critic)])
    same(*found)


@pytest.mark.parametrize("name", [name for name in CRITICS if name not in NO_THIRD])
def test_third_order(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        critic.requires_grad_()
        torch.manual_seed(2)
        grads = [grad for grad in gradients(of.r1_penalty(critic, x), critic, create_graph=True) if grad is not None]
        last = sum(grad.square().sum() for grad in grads if grad.requires_grad)
        found.append([*gradients(last, critic), *left(critic)] if torch.is_tensor(last) else [])
    same(*found, rtol=1e-8)


@every
def test_without_gradients(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        torch.manual_seed(2)
        with torch.no_grad():
            found.append([of.r1_penalty(critic, x), of.r1_penalty(critic, x), *left(critic)])
    same(*found)


@every
def test_by_a_function_of_somebodys_own(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        torch.manual_seed(2)
        value = of.r1_penalty(lambda x, critic=critic: critic(x), x)
        assert is_one_node(value) is (of is wk)
        critic.requires_grad_()
        value = of.r1_penalty(lambda x, critic=critic: critic(x), x)
        kept, graph = gradients(value, critic, retain_graph=True), gradients(value, critic, create_graph=True)
        found.append([*kept, *(grad if grad is None else grad.detach() for grad in graph), *left(critic)])
    same(*found)


@pytest.mark.parametrize("name", ["batch norm", "dropout", "spectral norm", "spectral norm by hooks"])
def test_in_channels_last_memory(name):
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        critic, x = critic.float(), x.float().repeat(8, 1, 1, 1)
        torch.manual_seed(2)
        found.append([*backward_once(of, critic, x), *left(critic)])
    same(*found, rtol=1e-4, atol=1e-5)


def test_training_and_evaluation_in_turn():
    critic = spectral(digits(nn.BatchNorm2d(4), nn.Dropout(0.2))).double()
    other, x = copy.deepcopy(critic), torch.randn(IMAGE, dtype=torch.float64)
    for training in (True, False, True):
        found = []
        for of, each in ((wk, critic), (wk.reference, other)):
            torch.manual_seed(2)
            found.append([*backward_once(of, each.train(training), x), *left(each)])
        same(*found)
        assert is_one_node(wk.r1_penalty(critic, x))
        wk.reference.r1_penalty(other, x)


def test_a_refusal_leaves_nothing_behind(monkeypatch):
    """The critic is called then: nothing may have been drawn or followed before."""

    def refuse(node, r, wanted):
        raise Refused("as a shape may be")

    monkeypatch.setattr("wgan_kernels.one_pass.flatten.Flatten.forward", refuse)
    torch.manual_seed(1)
    critic = spectral(digits(nn.BatchNorm2d(4), nn.Dropout(0.2))).double()
    other, x, found = copy.deepcopy(critic), torch.randn(IMAGE, dtype=torch.float64), []
    for of, each in ((wk, critic), (wk.reference, other)):
        torch.manual_seed(2)
        assert not is_one_node(of.r1_penalty(each, x))
        torch.manual_seed(3)
        found.append([*backward_once(of, each, x), *left(each)])
    same(*found)


def test_perceptrons_with_computed_weights_take_the_kernels():
    if not has_vectors():
        pytest.skip("the kernels are not taken on this processor")
    critic, x = spectral(nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, 1))), torch.randn(32, 6)
    wk.r1_penalty(critic, x)
    way = known_of(critic, x).general
    assert way.program.suited(x, way.results(x, ())) is way.program.perceptron


@every
def test_critic_steps_take_it(name):
    """Where they have no program: of the penalty alone. In a program masks are drawn for one batch after the other."""
    found = []
    for of, (critic, x) in zip((wk, wk.reference), pair(name), strict=True):
        step, metrics = of.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), "r1"), []
        torch.manual_seed(2)
        for _ in range(2):
            metrics += step(x, x.flip(0).roll(1, -1)).values()
        found.append([*metrics, *critic.parameters(), *left(critic)])
    same(*found, rtol=1e-9)


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: perceptron(nn.BatchNorm1d(5)), r"1 \(BatchNorm1d\) normalises over the batch"),
        (lambda: spectral(perceptron()), r"0 \(ParametrizedLinear\) computes its weight anew"),
    ],
    ids=["batch norm", "spectral norm"],
)
def test_critic_steps_say_why_they_do_not(make, why):
    critic = make()
    step = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.0))
    assert step(torch.randn(VECTOR), torch.randn(VECTOR))["loss"].isfinite()
    assert re.search(why, step.plan)


def computing(layer, draw):
    """A layer with a weight that is computed, or as it is."""
    norms = parametrizations.spectral_norm, nn.utils.spectral_norm, parametrizations.weight_norm
    return draw(st.sampled_from([lambda layer: layer, *norms]))(layer)


@st.composite
def stateful(draw):
    """(critic, x): of ``critics`` with weights that are computed and with dropout."""
    critic, x = draw(critics())
    layers = []
    for layer in critic:
        if isinstance(layer, LAYERS) and isinstance(getattr(layer, "padding", 0), (int, tuple)):
            layer = computing(layer, draw)
        layers.append(layer)
        if draw(st.integers(0, 3)) == 0:
            layers.append(nn.Dropout(0.4))
    return nn.Sequential(*layers).double(), x


@given(stateful())
def test_any_stateful_critic(drawn):
    critic, x = drawn
    other, found = copy.deepcopy(critic), []
    with sdpa_kernel(SDPBackend.MATH):
        torch.manual_seed(3)
        assume(not is_on_a_kink(copy.deepcopy(critic), x))
        torch.manual_seed(3)
        norms = wk.reference.penalty.input_gradient(copy.deepcopy(critic), x).flatten(1).norm(dim=1)
        assume(not ((norms > 0) & (norms < 1e-9)).any())
        for of, each in ((wk, critic), (wk.reference, other)):
            torch.manual_seed(3)
            value = of.r1_penalty(each, x)
            if of is wk:
                event("one node" if value.grad_fn is not None and is_one_node(value) else "by calls")
            grads = gradients(value, each) if value.requires_grad else []
            found.append([value.detach(), *grads, *left(each)])
    scale = max([1.0, *(grad.abs().max().item() for grad in found[1] if grad is not None and grad.numel())])
    same(*found, rtol=1e-7, atol=1e-9 * scale)
