"""CriticStep under precision=, and under the caller's autocast."""

import pytest
import torch
from critic_steps import IMAGE, PROGRAMS, VECTOR, convolutional, linear, pair
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk


def gradients(kind, dtype, make, shape, way=None, **settings):
    """Of updates with the R1 penalty, which draws nothing, of some critics: one long vector in float64."""
    found = []
    for seed in range(8):
        torch.manual_seed(seed)
        critic = make().to(dtype)
        real, fake = torch.randn(2, *shape).to(dtype)
        step = kind(critic, torch.optim.SGD(critic.parameters(), lr=0.0), "r1", tune=False, **settings)
        if way:
            step._fastest = lambda *_, step=step: getattr(step, way)
        step(real, fake)
        found += [param.grad.double().flatten() for param in critic.parameters()]
    return torch.cat(found)


NARROW = PROGRAMS | {"batch norm": (lambda: convolutional(nn.BatchNorm2d(4)), IMAGE)}


@pytest.mark.parametrize("way", ["by precision", "by the caller", "in channels-last memory"])
@pytest.mark.parametrize(("make", "shape"), NARROW.values(), ids=NARROW)
def test_bfloat16_is_as_exact_as_eager(make, shape, way):
    """Against float64: at most twice the error of the reference under autocast."""
    exact = gradients(wk.reference.CriticStep, torch.float64, make, shape)
    with torch.autocast("cpu", torch.bfloat16):
        eager = gradients(wk.reference.CriticStep, torch.float32, make, shape)
    asked = {} if way == "by the caller" else {"precision": "bfloat16"}
    if "channels" in way:
        if len(shape) != 4 or make is NARROW["batch norm"][0]:
            pytest.skip("no program, or no images")
        asked["way"] = "_by_program_in_channels_last"
    with torch.autocast("cpu", torch.bfloat16, enabled="precision" not in asked):
        ours = gradients(wk.CriticStep, torch.float32, make, shape, **asked)
    single = gradients(wk.CriticStep, torch.float32, make, shape)
    error = (ours - exact).norm()
    assert (single - exact).norm() < 0.01 * error  # it is another precision
    assert error <= 2 * (eager - exact).norm()


def test_a_program_rounds_to_bfloat16_what_autocast_does():
    critic = convolutional(nn.LayerNorm((4, 4, 4)))
    step = wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=0.1), tune=False, precision="bfloat16")
    with Operators() as seen:
        step(*torch.randn(2, *IMAGE))
    assert step._way is not None
    products = {
        name: dtypes for name, dtypes in seen.dtypes.items() if "convolution" in name or name in ("mm", "addmm")
    }
    assert len(products) >= 3 and all(dtypes == {torch.bfloat16} for dtypes in products.values()), products
    assert all(param.grad.dtype is torch.float32 for param in critic.parameters())


class Operators(TorchDispatchMode):
    """Of each operator that is dispatched, the types of its floating-point tensors."""

    def __init__(self):
        super().__init__()
        self.dtypes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {arg.dtype for arg in args if isinstance(arg, torch.Tensor) and arg.is_floating_point()}
        self.dtypes.setdefault(func.overloadpacket.__name__, set()).update(given)
        return func(*args, **(kwargs or {}))


def test_losses_are_not_rounded_to_bfloat16():
    ours, _, real, fake = pair(convolutional, IMAGE, "gp", torch.float32)
    ours.precision = "bfloat16"
    for value in ours(real, fake).values():
        assert value.dtype is torch.float32 and value != value.bfloat16()


def test_tf32_is_a_setting_of_the_step_alone():
    seen, critic = [], linear(7, 9, 1)
    critic.register_forward_hook(lambda *_: seen.append(torch.backends.cuda.matmul.allow_tf32))
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    wk.CriticStep(critic, torch.optim.SGD(critic.parameters(), lr=0.1), precision="tf32")(*torch.randn(2, *VECTOR))
    assert seen and all(seen)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
