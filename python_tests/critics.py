"""What the tests of the double backward share: critics, comparison with plain autograd, counting what is dispatched."""

import collections

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def mlp(*hidden, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(4, 6), activation(), *hidden, nn.Linear(6, 1)).double()


def points(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def gradient_norms(critic, x, context):
    x = x.detach().requires_grad_()
    with context:
        scores = critic(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return scores, grad


def everything(critic, x, context):
    """Scores, their input gradient, and what each parameter receives from a penalty: a tensor, or None."""
    torch.manual_seed(0)
    scores, grad = gradient_norms(critic, x, context)
    penalty = (grad.flatten(1).norm(dim=1) - 1).square().mean()
    params = [p for p in critic.parameters() if p.requires_grad]
    received = [None] * len(params)
    if penalty.requires_grad:
        received = torch.autograd.grad(penalty, params, retain_graph=True, allow_unused=True)
    first = torch.autograd.grad(scores.square().mean(), params, allow_unused=True)
    return [scores, grad, penalty, *received, *first]


def assert_as_autograd(critic, x, rtol=1e-10, atol=1e-12):
    """Also with the buffers that each leaves behind. PyTorch has no double backward for its fused attention kernels."""
    before = [buffer.clone() for buffer in critic.buffers()]
    actual = everything(critic, x, wk.second_order())
    after = [buffer.clone() for buffer in critic.buffers()]
    with torch.no_grad():
        for buffer, value in zip(critic.buffers(), before, strict=True):
            buffer.copy_(value)
    with sdpa_kernel(SDPBackend.MATH):
        expected = everything(critic, x, wk.reference.second_order())
    assert [a is None for a in actual] == [e is None for e in expected]
    for a, e in zip(after, critic.buffers(), strict=True):
        torch.testing.assert_close(a, e, rtol=rtol, atol=atol)
    norms = expected[1].flatten(1).norm(dim=1)
    if ((norms > 0) & (norms < 1e-9)).any():  # nothing but rounding, which the penalty's derivative divides by
        actual, expected = actual[:2], expected[:2]
    largest = max(e.abs().max().item() for e in expected if e is not None and e.numel())
    for a, e in zip(actual, expected, strict=True):
        if e is not None:
            assert a.dtype == e.dtype
            torch.testing.assert_close(a, e, rtol=rtol, atol=atol * max(1.0, largest))


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "convolution_backward":
            name += "." + "".join(letter for letter, wanted in zip("xwb", args[-1], strict=True) if wanted)
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))
