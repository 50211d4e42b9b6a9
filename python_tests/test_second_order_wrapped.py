"""The double backward within what a training script puts around a critic or into it."""

import threading
from pathlib import Path

import pytest
import torch
from critics import assert_as_autograd, everything, mlp, points
from processes import run_python
from torch import nn
from torch.utils.checkpoint import checkpoint

import wgan_kernels as wk

pytestmark = pytest.mark.usefixtures("however_small")


class Lambda(nn.Module):
    """A function of x and modules."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.inner)


def convolutional():
    layers = [nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2)]
    return nn.Sequential(*layers, nn.PReLU(3), nn.AvgPool2d(2, 1), nn.Conv2d(3, 1, 1)).double()  # a patch of scores


def test_patch_outputs():
    assert_as_autograd(convolutional(), points(3, 2, 14, 14))


def test_channels_last_with_pools_and_norms():
    x = points(3, 2, 14, 14).to(memory_format=torch.channels_last)
    assert_as_autograd(convolutional().to(memory_format=torch.channels_last), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_every_kind_in_half_types(dtype, how):
    critic, x = convolutional().float(), torch.randn(3, 2, 14, 14)
    critic.insert(4, nn.ReflectionPad2d(1))
    critic.insert(5, Lambda(lambda x: nn.functional.scaled_dot_product_attention(x, x, x)))
    if how == "weights":
        critic, x = critic.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        assert_as_autograd(critic, x, rtol=0.1, atol=0.1)


def test_running_statistics_are_updated_once():
    critic, x = convolutional(), points(3, 2, 14, 14)
    wk.r1_penalty(critic, x).backward()
    assert critic[1].num_batches_tracked == 1


def test_minibatch_standard_deviation():
    def deviation(x, score):
        group = x.std(0, correction=0).mean().expand(len(x), 1)
        return score(torch.cat([x, group], 1))

    assert_as_autograd(nn.Sequential(mlp()[:2], Lambda(deviation, nn.Linear(7, 1))).double(), points(4, 4))


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_reparametrised_layers_in_training(norm):
    critic = nn.Sequential(norm(nn.Linear(4, 6)), nn.ReLU(), norm(nn.Linear(6, 6)), nn.LeakyReLU(0.2), nn.Linear(6, 1))
    assert_as_autograd(critic.double(), points(3, 4))


def test_hooks_on_modules():
    """Backward hooks are called for what runs: not for the pass of zeros, which PyTorch ends with a "before"."""
    critic, seen = mlp(nn.Linear(6, 6), nn.ReLU()), []
    critic[0].register_full_backward_hook(lambda module, inputs, outputs: seen.append("backward"))
    critic[2].register_full_backward_pre_hook(lambda module, outputs: seen.append("before"))
    critic[1].register_forward_hook(lambda module, args, out: out * 1.5)
    critic[3].register_forward_pre_hook(lambda module, args: (args[0] + 0.25,))
    x = points(3, 4)
    actual = everything(critic, x, wk.second_order())
    ours, seen[:] = list(seen), []
    expected = everything(critic, x, wk.reference.second_order())
    assert ours == ["before", "backward", "before"] and seen == [*ours, "before"]
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12) if e is not None else None


def test_checkpointed_attention_pools_and_norms():
    inner = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=0), nn.ReLU(), nn.MaxPool2d(2), nn.PReLU())
    critic = Lambda(lambda x, inner, score: score(checkpoint(inner, x, use_reentrant=False)), inner, nn.Conv2d(4, 1, 2))
    assert_as_autograd(critic.double(), points(2, 2, 8, 8))


def test_a_compiled_part():
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    compiled = torch.compile(inner, backend="eager")
    critic = Lambda(lambda x, first, score: score(compiled(torch.relu(first(x)))), nn.Linear(4, 6), nn.Linear(6, 1))
    critic.inner.append(inner)
    critic.function = lambda x, first, score, _: score(compiled(torch.relu(first(x))))
    x = points(3, 4)
    actual = everything(critic.double(), x, wk.second_order())
    for a, e in zip(actual, everything(critic, x, wk.reference.second_order()), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)


def test_a_conditional_critic_with_frozen_parts_as_a_closure():
    body, embedding, labels = mlp(), nn.Embedding(3, 6).double(), torch.tensor([0, 2, 1])
    body[0].bias.requires_grad_(False)

    def critic(x):
        hidden = body[:2](x)
        return body[2](hidden) + (hidden * embedding(labels)).sum(1, keepdim=True)

    params, x = [body[0].weight, *body[2].parameters(), embedding.weight], points(3, 4)
    results = []
    for of in (wk, wk.reference):
        value = of.gradient_penalty(critic, x, -x, eps=torch.full((3,), 0.5))
        results.append([value, *torch.autograd.grad(value, params, allow_unused=True)])
    for a, e in zip(*results, strict=True):
        assert (a is None) == (e is None)
        torch.testing.assert_close(a, e) if e is not None else None


def normalised(x, dim):
    centred = x - x.mean(dim, keepdim=True)
    return centred * (centred.square().mean(dim, keepdim=True) + 1e-5).rsqrt()


@pytest.mark.parametrize(
    ("layer", "plainly"),
    [
        (nn.PReLU(), None),
        (nn.LayerNorm(6, elementwise_affine=False), lambda x: normalised(x, -1)),
        (nn.BatchNorm1d(6, affine=False), lambda x: normalised(x, 0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_third_derivatives_in_the_parameters(layer, plainly):
    """PyTorch 2.15 has wrong ones for its LayerNorm, silently, and none for BatchNorm: they are compared by formula."""
    critic, x = mlp(layer, nn.Tanh(), activation=nn.Softplus), points(5, 4)

    def third(context):
        z = x.clone().requires_grad_()
        with context:
            scores = critic(z)
        (grad,) = torch.autograd.grad(scores.sum(), z, create_graph=True)
        (bent,) = torch.autograd.grad(grad.norm(dim=1).sum(), z, create_graph=True)
        params = [critic[0].weight, critic[0].bias, critic[-1].weight]
        return [bent, *torch.autograd.grad(bent.square().sum(), params)]

    actual = third(wk.second_order())
    if plainly is not None:
        critic[2] = Lambda(plainly)
    for a, e in zip(actual, third(wk.reference.second_order()), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-9)


def test_threads_do_not_meet():
    """Each with its own mode; and a thread without it, in the meantime, has PyTorch's own."""
    critic, x = mlp(nn.Linear(6, 6), nn.ReLU()), points(3, 4)
    expected = everything(critic, x, wk.reference.second_order())
    barrier, failures = threading.Barrier(4), []

    def work(context):
        try:
            for _ in range(20):
                barrier.wait()
                with context():
                    z = x.clone().requires_grad_()
                    name = type(critic(z).grad_fn).__name__
                assert ("Addmm" in name) == (context is wk.reference.second_order), name
                torch.testing.assert_close(everything(critic, x, context())[1], expected[1])
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    contexts = [wk.second_order, wk.reference.second_order] * 2
    threads = [threading.Thread(target=work, args=(context,)) for context in contexts]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_transformers(dropout):
    """Where PyTorch's own fused attention refuses; with dropout both draw the same."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    critic = nn.Sequential(
        nn.Linear(3, 8),
        Lambda(lambda x, layer: layer(x, src_mask=mask, is_causal=True), layer),
        nn.Tanh(),
        nn.Linear(8, 1),
    ).double()
    assert_as_autograd(critic, points(2, 5, 3))
    assert_as_autograd(critic.eval(), points(2, 5, 3))
    if not dropout:
        with pytest.raises(RuntimeError, match="not implemented"):
            wk.reference.r1_penalty(critic, points(2, 5, 3)).backward()
    wk.r1_penalty(critic, points(2, 5, 3)).backward()


DISTRIBUTED = """
import os, sys, torch
sys.path.insert(0, {tests!r})
rank = 0 if os.fork() else 1
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from critics import mlp
import wgan_kernels as wk

sys.modules["wgan_kernels.second_order"]._WORTHWHILE = 0
dist.init_process_group("gloo", init_method="file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
critic, x = mlp(nn.Linear(6, 6), nn.ReLU()), torch.randn(4, 4).double()
eps = torch.full((2,), 0.5)

def gradients(of, critic, real, fake):
    penalty = of.gradient_penalty(critic, real, fake, eps=eps[:1].expand(len(real)))
    critic.zero_grad()
    wk.critic_loss(critic(real), critic(fake), penalty).backward()
    return [param.grad.clone() for param in critic.parameters()]

expected = gradients(wk.reference, critic, x, x.flip(1))
wrapped = DistributedDataParallel(critic)
for _ in range(2):
    part = x[2 * rank :][:2]
    for a, e in zip(gradients(wk, wrapped, part, part.flip(1)), expected):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
sharded = fully_shard(mlp(), mesh=init_device_mesh("cpu", (2,)))
try:
    wk.gradient_penalty(lambda x: sharded(x), x, x)
    wk.gradient_penalty(sharded, x, x)
except RuntimeError as error:
    assert "critic: is sharded by FSDP" in str(error), error
else:
    raise AssertionError("FSDP was not refused")
dist.destroy_process_group()
if rank == 1:
    os._exit(0)
assert os.wait()[1] == 0
print("same")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_ddp_averages_as_ever_and_fsdp_is_refused(tmp_path):
    tests = str(Path(__file__).parent)
    result = run_python(DISTRIBUTED.format(tests=tests, file=tmp_path / "store"), Path(wk.__file__).parents[1])
    assert "same" in result.stdout, result.stderr
