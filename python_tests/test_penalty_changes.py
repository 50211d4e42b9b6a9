"""Critics that change between two penalties, or a penalty and its backward; and what a program must not take."""

import itertools

import pytest
import torch
from torch import nn

import wgan_kernels as wk
from wgan_kernels import reference

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
close = torch.testing.assert_close


def perceptron(*behind):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), *behind, nn.ReLU(), nn.Linear(8, 1)).double()


def results(of, critic, x=X, beside=()):
    """The penalty R1 and what it gives to the critic's parameters and to others."""
    value = of.r1_penalty(critic, x)
    return value.detach(), torch.autograd.grad(value, [*critic.parameters(), *beside], allow_unused=True)


def step_results(of, critic):
    critic.zero_grad()
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.0)
    metrics = of.CriticStep(critic, optimizer, penalty="r1")(X, X.flip(0))
    return metrics["penalty"], [param.grad for param in critic.parameters()]


def same(ours, theirs):
    close(ours[0], theirs[0], rtol=1e-10, atol=1e-12)
    for one, other in zip(ours[1], theirs[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            close(one, other, rtol=1e-10, atol=1e-12)


# --- what a program must not take ---------------------------------------------------------------------------------


def test_a_weight_that_is_made_of_another_parameter():
    critic, made_of = perceptron(), nn.Parameter(torch.randn(1, 8, dtype=torch.float64))
    del critic[2].weight
    critic[2].weight = made_of / made_of.norm()
    for _ in range(2):
        theirs = results(reference, critic, beside=[made_of])
        critic[2].weight = made_of / made_of.norm()
        same(results(wk, critic, beside=[made_of]), theirs)
        critic[2].weight = made_of / made_of.norm()


@pytest.mark.parametrize("run", [results, step_results])
def test_a_weight_that_is_the_transpose_of_another(run):
    first, second = nn.Linear(6, 4, bias=False), nn.Linear(4, 6)
    del second.weight
    second.weight = first.weight.t()
    critic = nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.ReLU(), nn.Linear(6, 1)).double()
    second.weight = first.weight.t()
    ours = run(wk, critic)
    second.weight = first.weight.t()
    same(ours, run(reference, critic))


MISFITS = {
    "samples for channels": lambda: perceptron(nn.InstanceNorm1d(8)),
    "pixels": lambda: perceptron(nn.Unflatten(1, (4, 2)), nn.InstanceNorm1d(3), nn.Flatten()),
    "an axis too few": lambda: perceptron(nn.Unflatten(1, (4, 2)), nn.InstanceNorm2d(4), nn.Flatten()),
    "a slope that is a tensor": lambda: perceptron(nn.LeakyReLU(torch.tensor(0.2))),
}


@pytest.mark.filterwarnings("ignore:input's size at dim")
@pytest.mark.parametrize("run", [results, step_results])
@pytest.mark.parametrize("make", MISFITS.values(), ids=MISFITS)
def test_layers_that_take_their_input_otherwise(make, run):
    critic = make()
    same(run(wk, critic), run(reference, critic))


def test_a_norm_of_another_shape_is_refused_as_torch_does():
    critic = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.LayerNorm(6), nn.Flatten(), nn.Linear(6, 1)).double()
    for of in (wk, reference):
        with pytest.raises(RuntimeError, match="normalized_shape"):
            of.r1_penalty(critic, X)


def test_an_image_without_a_batch():
    critic, image = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()).double(), torch.randn(3, 8, dtype=torch.float64)
    same(results(wk, critic, image), results(reference, critic, image))


def test_one_input_that_cannot_be_does_not_count_for_others():
    critic = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.Linear(6, 1)).double()
    with pytest.raises(RuntimeError):
        wk.r1_penalty(critic, torch.randn(4, 7, dtype=torch.float64))
    value = wk.r1_penalty(critic, X)
    assert value.grad_fn.next_functions[0][0].name() == "PenaltyBackward"


@pytest.mark.parametrize("nothing", [nn.Identity(), nn.Dropout(0.5).eval()], ids=str)
def test_one_sample_through_a_layer_that_changes_nothing(nothing):
    """PyTorch's weight gradient of grouped convolutions is wrong for the strides that a reshape would give it."""
    torch.manual_seed(5)
    critic, x = nn.Sequential(nothing, nn.Conv2d(4, 6, 3, padding=2, groups=2)).double(), torch.randn(1, 4, 6, 6)
    same(results(wk, critic, x.double()), results(reference, critic, x.double()))


# --- between two penalties ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [results, step_results])
def test_a_layer_that_is_there_already_comes_once_more(run):
    shared, activation = nn.Linear(6, 6), nn.ReLU()
    critic = nn.Sequential(shared, activation, nn.Linear(6, 1)).double()
    run(wk, critic)
    critic.insert(2, activation)
    critic.insert(2, shared)
    same(run(wk, critic), run(reference, critic))


def test_a_layer_of_another_class():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    critic = perceptron()
    results(wk, critic)
    critic[0].__class__ = Twice
    same(results(wk, critic), results(reference, critic))


# --- between a penalty and its backward ---------------------------------------------------------------------------


def test_a_frozen_weight_that_is_written_over_is_noticed():
    critic = perceptron(nn.ReLU(), nn.Linear(8, 8))
    critic[2].requires_grad_(False)
    for of in (wk, reference):
        value = of.r1_penalty(critic, X)
        with torch.no_grad():
            critic[2].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


def test_the_weights_that_were_there_receive_the_gradient():
    found = []
    for of in (wk, reference):
        critic = perceptron(nn.LayerNorm(8))
        before, value = list(critic.parameters()), of.r1_penalty(critic, X)
        critic.load_state_dict({name: t.clone() for name, t in critic.state_dict().items()}, assign=True)
        value.backward()
        found.append((value.detach(), [param.grad for param in before]))
    same(*found)


def test_a_penalty_within_functional_call_can_be_differentiated_twice():
    class Penalised(nn.Module):
        def __init__(self, of):
            super().__init__()
            self.critic, self.of = perceptron(), of

        def forward(self, x):
            return self.of.r1_penalty(self.critic, x)

    found = []
    for of in (wk, reference):
        module = Penalised(of)
        params = {name: param.detach().clone().requires_grad_() for name, param in module.named_parameters()}
        value = torch.func.functional_call(module, {name: 2 * p for name, p in params.items()}, (X,))
        first = torch.autograd.grad(value, params["critic.0.weight"], create_graph=True)[0]
        found.append((first.detach(), torch.autograd.grad(first.square().sum(), params["critic.2.weight"])))
    same(*found)


CHANGES = {
    "mode": lambda critic: critic.train(),
    "a layer": lambda critic: critic.insert(1, nn.ReLU()),
    "a parameter": lambda critic: setattr(critic[0], "weight", nn.Parameter(critic[0].weight.detach() * 2)),
}


@pytest.mark.parametrize("again", ["create_graph", "second backward"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_critic_that_changed_is_not_run_again(change, again):
    critic = perceptron(nn.Dropout(0.5)).eval()
    value, weight = wk.r1_penalty(critic, X), critic[-1].weight
    if again == "second backward":
        torch.autograd.grad(value, weight, retain_graph=True)
    change(critic)
    with pytest.raises(RuntimeError, match="critic: has changed since the penalty was made"):
        torch.autograd.grad(value, weight, create_graph=again == "create_graph")


def test_a_second_backward_is_made_in_the_surroundings_of_the_first():
    critic = perceptron(nn.LayerNorm(8)).float()
    with torch.autocast("cpu", torch.bfloat16):
        value = wk.r1_penalty(critic, X.float())
    params = list(critic.parameters())
    first = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
    with wk.use_backend("reference"):
        second = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
    graph = torch.autograd.grad(value, params, create_graph=True, allow_unused=True)
    for one, two, three in zip(first, second, graph, strict=True):
        assert (one is None) == (two is None) == (three is None)
        if one is not None:
            assert torch.equal(one, two)
            close(one, three.detach(), rtol=0.1, atol=0.1 * one.abs().max())


def test_gradients_in_batches():
    found = []
    for of, norm in itertools.product((wk, reference), (None, nn.LayerNorm(8))):
        critic = perceptron(*[] if norm is None else [norm])
        (grad,) = torch.autograd.grad(
            of.r1_penalty(critic, X), critic[0].weight, X.new_tensor([1.0, 2.0]), is_grads_batched=True
        )
        found.append(grad)
    for ours, theirs in zip(found[:2], found[2:], strict=True):
        close(ours, theirs, rtol=1e-10, atol=1e-12)
