"""Tensor subclasses: seen by __torch_function__ and kept; DTensor refused by name, before anything is written."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from processes import run_python
from torch import nn

import wgan_kernels as wk


class Tagged(torch.Tensor):
    """Notes what is called on it."""

    seen: ClassVar[list] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(getattr(func, "__name__", str(func)))
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.fixture(autouse=True)
def nothing_seen():
    Tagged.seen.clear()


def tagged(*shape):
    return torch.randn(*shape).as_subclass(Tagged)


@pytest.mark.parametrize(
    ("op", "function"),
    {
        "interpolate_fwd": lambda x: wk.interpolate(x, x, torch.rand(4)),
        "norm_penalty_fwd": wk.gradient_norm_penalty,
        "wasserstein_fwd": lambda x: wk.critic_loss(x, x),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operators_are_seen_and_the_type_is_kept(op, function):
    plain = torch.randn(4, 3)
    out = function(plain.as_subclass(Tagged))
    assert type(out) is Tagged and any(op in name for name in Tagged.seen)
    torch.testing.assert_close(out.as_subclass(torch.Tensor), function(plain))


def test_gradients_keep_the_type():
    x = tagged(4, 3).requires_grad_()
    (grad,) = torch.autograd.grad(wk.gradient_norm_penalty(x), x)
    assert grad.shape == x.shape
    (expected,) = torch.autograd.grad(wk.reference.gradient_norm_penalty(x), x)
    torch.testing.assert_close(grad.as_subclass(torch.Tensor), expected.as_subclass(torch.Tensor))


def test_a_step_takes_the_operator():
    param = tagged(3).requires_grad_()
    param.grad = torch.ones(3)
    twin = nn.Parameter(param.detach().as_subclass(torch.Tensor).clone())
    twin.grad = torch.ones(3)
    Tagged.seen.clear()
    wk.optim.RMSprop([param], lr=0.1, clip=0.5).step()
    wk.optim.RMSprop([twin], lr=0.1, clip=0.5).step()
    assert any("rmsprop_" in name for name in Tagged.seen)
    assert param.tolist() == twin.tolist()


DTENSOR = """
import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
import wgan_kernels as wk

dist.init_process_group("gloo", init_method="file://{file}", rank=0, world_size=1)
part = distribute_tensor(torch.full((4, 3), 2.0), init_device_mesh("cpu", (1,)), [Shard(0)])
plain = torch.full((4, 3), 2.0)
calls = {{
    "params[1]": lambda: wk.clip_([plain, part], 1.0),
    "real": lambda: wk.interpolate(part, plain),
    "fake": lambda: wk.interpolate(plain, part),
    "grad": lambda: wk.gradient_norm_penalty(part),
    "real_scores": lambda: wk.critic_loss(part, plain),
    "fake_scores": lambda: wk.generator_loss(part),
    "params": lambda: wk.optim.Adam([torch.nn.Parameter(part)]),
}}
for name, call in calls.items():
    try:
        call()
    except TypeError as error:
        assert str(error).startswith(name + ": expected a plain tensor, got a DTensor; pass .to_local()"), error
    else:
        raise AssertionError(name)
assert plain.eq(2).all()
wk.clip_([part.to_local()], 1.0)
assert part.full_tensor().eq(1).all()
dist.destroy_process_group()
print("refused")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_a_dtensor_is_refused_by_name(tmp_path):
    result = run_python(DTENSOR.format(file=tmp_path / "store"), Path(wk.__file__).parents[1])
    assert "refused" in result.stdout, result.stderr
