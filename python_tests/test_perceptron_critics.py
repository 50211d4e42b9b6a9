"""Critics that are perceptrons, in penalties and in steps."""

import copy
import weakref

import pytest
import torch
from cases import needs_compiled
from perceptrons import Counting, frozen, perceptron
from torch import nn

import wgan_kernels as wk
from wgan_kernels.one_pass.known import known_of

pytestmark = [needs_compiled, pytest.mark.usefixtures("vectors")]


CRITICS = {
    "toy": lambda: perceptron(2, 64, 64, 1, slopes=[0.0]),
    "images": lambda: nn.Sequential(nn.Flatten(), *perceptron(2 * 5 * 6, 33, 9, 1)),
    "behind": lambda: nn.Sequential(*perceptron(4, 33, 9, 1), nn.Flatten(0)),
    "many scores": lambda: perceptron(4, 33, 9, 3),
    "linear at last": lambda: perceptron(4, 33, 9, 8, 1, slopes=[0.2, None, None]),
    "active at last": lambda: nn.Sequential(*perceptron(4, 33, 9), nn.ReLU()),
    "in place": lambda: nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(0.1, inplace=True), nn.Linear(9, 1)),
    "a layer twice": lambda: (lambda layer: nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 1)))(nn.Linear(4, 4)),
    "a frozen bias": lambda: frozen(perceptron(4, 33, 9, 1), "2.bias"),
    "smooth": lambda: perceptron(4, 33, 9, 1, slopes=["SiLU", "Tanh"]),
    "smooth and many scores": lambda: perceptron(4, 33, 9, 3, slopes=["Softplus"]),
    "smooth, then not": lambda: perceptron(4, 33, 9, 8, 8, 1, slopes=["GELU", 0.0, "ELU", None]),
    "smooth at last": lambda: nn.Sequential(*perceptron(4, 33, 9, slopes=[0.2]), nn.Sigmoid()),
    "smooth without biases": lambda: perceptron(4, 33, 9, 1, slopes=["Tanh"], biases=[False, True]),
    "a smooth layer twice": lambda: (lambda f: nn.Sequential(f, nn.Tanh(), f, nn.Tanh(), nn.Linear(4, 1)))(
        nn.Linear(4, 4)
    ),
    "nested": lambda: nn.Sequential(perceptron(4, 33, 9), nn.Sequential(nn.ReLU(), nn.Linear(9, 1))),
}
IMAGES = (2, 5, 6)


def shape_of(name):
    return {"toy": (2,), "images": IMAGES}.get(name, (4,))


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("batch", [1, 50])
def test_a_penalty_has_autograds_gradients(name, batch):
    critic = CRITICS[name]()
    real, fake = torch.randn(2, batch, *shape_of(name))
    eps = torch.rand(batch)
    with Counting() as seen:
        penalty = wk.gradient_penalty(critic, real, fake, eps=eps)
        penalty.backward()
    assert seen.seen == ["penalty", "finish"]
    plain = copy.deepcopy(critic)
    plain.zero_grad()
    expected = wk.reference.gradient_penalty(plain, real, fake, eps=eps)
    expected.backward()
    torch.testing.assert_close(penalty, expected)
    for (label, param), theirs in zip(critic.named_parameters(), plain.parameters(), strict=True):
        assert (param.grad is None) is (theirs.grad is None), label
        if param.grad is not None:
            torch.testing.assert_close(param.grad, theirs.grad, msg=label, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("penalty", ["gp", "r1"])
def test_a_step_is_the_references(name, penalty):
    critic = CRITICS[name]()
    real, fake = torch.randn(2, 24, *shape_of(name))
    plain = copy.deepcopy(critic)
    ours = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), penalty, tune=False)
    theirs = wk.reference.CriticStep(plain, torch.optim.SGD(plain.parameters(), 0.1), penalty)
    with Counting() as seen:
        torch.manual_seed(1)
        found = ours(real, fake)
    assert seen.seen == ["step"]
    torch.manual_seed(1)
    expected = theirs(real, fake)
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-4, atol=1e-5)
    for param, other in zip(critic.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(param, other, rtol=1e-4, atol=1e-5)


def weight_gradients(penalty, critic):
    return torch.autograd.grad(penalty, [critic[0].weight, critic[2].weight], retain_graph=True)


def assert_same_gradients(penalty, critic, x):
    """As of the reference's penalty."""
    expected = weight_gradients(wk.reference.r1_penalty(critic, x), critic)
    torch.testing.assert_close(weight_gradients(penalty, critic), expected, rtol=1e-4, atol=1e-6)


def test_samples_of_any_memory():
    critic = perceptron(6, 33, 1)
    whole = torch.randn(12, 50).t()
    for real in (whole[:, ::2], whole[::3, 3:9], torch.randn(3, 6).expand(3, 6)[:1].expand(4, 6)):
        penalty = wk.r1_penalty(critic, real)
        torch.testing.assert_close(penalty, wk.reference.r1_penalty(critic, real))
        assert_same_gradients(penalty, critic, real)


def test_two_graphs_at_once_and_kept_with_a_step_between():
    critic = perceptron(4, 33, 1)
    x, y = torch.randn(2, 20, 4)
    first, second = wk.r1_penalty(critic, x), wk.r1_penalty(critic, y)
    wk.CriticStep(critic, torch.optim.SGD([torch.ones(1)]), tune=False)(x, y)
    for _ in range(2):
        assert_same_gradients(first, critic, x)
        assert_same_gradients(second, critic, y)


def test_nothing_is_kept_and_a_critic_that_is_gone_is_forgotten():
    critic, x = perceptron(4, 33, 1), torch.randn(20, 4)
    wk.r1_penalty(critic, x).backward()
    (spare,) = known_of(critic, x).general.program.perceptron.spares
    assert spare.x is spare.weights is spare.biases is spare.kept is None
    weight = weakref.ref(critic[0].weight)
    del critic, spare
    assert weight() is None


@pytest.mark.parametrize("shape", [(9, 2, 2), (9, 4, 1)])
def test_samples_of_another_shape_are_refused_as_by_its_layers(shape):
    critic, x = perceptron(4, 8, 1), torch.randn(shape)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        wk.r1_penalty(critic, x)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), 0.1), tune=False)(x, x)


def test_a_layer_that_mixes_the_sample_it_is_given():
    critic, x = nn.Sequential(nn.Flatten(0), *perceptron(1, 8, 1)), torch.randn(1, 1)
    torch.testing.assert_close(wk.r1_penalty(critic, x), wk.reference.r1_penalty(critic, x))
