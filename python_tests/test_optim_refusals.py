"""What both optimizers refuse, and that nothing is written then."""

import math

import pytest
import torch
from optimizers import OPTIMIZERS, on_both
from torch import nn

import wgan_kernels as wk


@on_both
def test_a_state_of_another_shape_is_refused(name):
    ours, _, _ = OPTIMIZERS[name]
    param = torch.ones(2, 3, requires_grad=True)
    param.grad = torch.ones_like(param)
    optimizer = ours([param], lr=0.1)
    optimizer.step()
    before = param.detach().clone()
    for key, value in optimizer.state[param].items():
        if value is not None and value.dim() == 2:
            optimizer.state[param][key] = value.view(3, 2)
    with pytest.raises(RuntimeError, match="of the dtype, shape and strides of its parameter"):
        optimizer.step()
    assert torch.equal(param, before)


@on_both
@pytest.mark.parametrize(
    ("settings", "kind", "match"),
    [
        ({"clip": -1.0}, ValueError, "clip is -1.0: expected ≥ 0"),
        ({"clip": math.nan}, ValueError, "clip is NaN"),
        ({"clip": "a"}, TypeError, "clip: expected a number, got str"),
        ({"lr": -1.0}, ValueError, "Invalid learning rate: -1.0"),
        ({"eps": -1.0}, ValueError, "Invalid epsilon value: -1.0"),
        ({"differentiable": True}, ValueError, "differentiable: expected False"),
    ],
    ids=str,
)
def test_refuses_settings(name, settings, kind, match):
    ours, *_ = OPTIMIZERS[name]
    with pytest.raises(kind, match=match):
        ours([nn.Parameter(torch.ones(2))], **settings)
    group = {"params": [nn.Parameter(torch.ones(2))], **settings}
    if "clip" in settings:
        with pytest.raises(kind, match=match.replace("clip", "clip of a parameter group", 1)):
            ours([group])


@on_both
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("clip", "kind"), [(-1.0, ValueError), (math.nan, ValueError), ("a", TypeError)], ids=str)
def test_a_clip_that_is_set_later_is_checked_before_the_step(name, backend, clip, kind):
    ours, *_ = OPTIMIZERS[name]
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = ours([{"params": [first]}, {"params": [second], "clip": 0.5}], lr=0.1)
    optimizer.param_groups[1]["clip"] = clip
    first.grad = second.grad = torch.ones(2)
    with wk.use_backend(backend), pytest.raises(kind, match="clip of a parameter group"):
        optimizer.step()
    assert first.eq(1).all() and second.eq(1).all()


@on_both
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool], ids=str)
def test_refuses_dtypes(name, dtype):
    ours, *_ = OPTIMIZERS[name]
    with pytest.raises(TypeError, match="params: expected float64, float32, float16 or bfloat16"):
        ours([torch.ones(2, dtype=dtype)])
    optimizer = ours([torch.ones(2)])
    with pytest.raises(TypeError):
        optimizer.add_param_group({"params": torch.ones(2, dtype=dtype)})
    assert len(optimizer.param_groups) == 1


@on_both
def test_a_sparse_gradient_is_refused_before_anything_is_written(name):
    ours, *_ = OPTIMIZERS[name]
    dense, sparse = nn.Parameter(torch.ones(2)), nn.Embedding(3, 2, sparse=True)
    dense.grad = torch.ones(2)
    sparse(torch.tensor([1])).sum().backward()
    optimizer = ours([{"params": [dense]}, {"params": sparse.parameters()}], lr=0.1, clip=0.5)
    with pytest.raises(RuntimeError, match="a gradient is sparse"):
        optimizer.step()
    assert dense.tolist() == [1.0, 1.0]


def test_amsgrad_is_refused_by_name():
    param = nn.Parameter(torch.ones(2))
    optimizer = wk.optim.Adam([param])
    with pytest.raises(ValueError, match="amsgrad: expected False"):
        optimizer.load_state_dict(torch.optim.Adam([param], amsgrad=True).state_dict())


@on_both
def test_a_backend_that_cannot_run_writes_nothing(name):
    ours, *_ = OPTIMIZERS[name]
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    with wk.use_backend("cuda"), pytest.raises(RuntimeError, match=f"{name}: backend 'cuda' was asked for"):
        ours([param], lr=0.1).step()
    assert param.tolist() == [1.0, 1.0]
