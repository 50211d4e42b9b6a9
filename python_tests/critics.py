"""What the tests of the double backward share: critics, comparison with plain autograd, counting what is dispatched."""

import collections

import hypothesis
import torch
from cases import GROUP_NORM_IS_SOUND
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk
from wgan_kernels.one_pass import trace_step


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def mlp(*hidden, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(4, 6), activation(), *hidden, nn.Linear(6, 1)).double()


def program_of(critic):
    """Of a step."""
    return trace_step(critic).program


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


PIECEWISE = [nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.ReLU6, lambda: nn.Hardtanh(-0.5, 1.5), lambda: nn.LeakyReLU(0.0)]
SMOOTH = [nn.Tanh, nn.Softplus, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid, nn.Hardswish, nn.SELU, lambda: nn.CELU(0.5)]
IN_PLACE = [lambda: nn.ReLU(inplace=True), lambda: nn.LeakyReLU(0.1, inplace=True), lambda: nn.Hardtanh(-1, 1, True)]
ACTIVATIONS = st.sampled_from([*PIECEWISE, *SMOOTH, *IN_PLACE, nn.PReLU])


def of(dims, name):
    """nn.Conv2d for 2 and "Conv"."""
    return getattr(nn, f"{name}{dims}d")


class Heads(nn.Module):
    """Self-attention over [B, tokens, width], by the module or by the function."""

    def __init__(self, width, module, causal):
        super().__init__()
        self.inner = nn.MultiheadAttention(width, width, batch_first=True) if module else nn.Linear(width, 3 * width)
        self.causal = causal

    def forward(self, x):
        if isinstance(self.inner, nn.MultiheadAttention):
            return self.inner(x, x, x, need_weights=False)[0]
        q, k, v = self.inner(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


@st.composite
def perceptrons(draw):
    """(layers, x)"""
    width, tokens = draw(st.integers(1, 6)), draw(st.sampled_from([(), (3,)]))
    x, layers = torch.randn(draw(st.integers(1, 3)), *tokens, width), []
    for _ in range(draw(st.integers(1, 6))):
        wider = draw(st.integers(1, 6))
        layers += [nn.Linear(width, wider, bias=draw(st.booleans()))]
        if len(x) > 1 and not tokens and draw(st.booleans()):
            layers.append(batch_norm(draw, 1, wider))
        layers.append(draw(ACTIVATIONS)())
        if draw(st.booleans()):
            layers.append(Residual(nn.Sequential(nn.Linear(wider, wider), draw(ACTIVATIONS)())))
        if tokens and draw(st.booleans()):
            layers.append(Residual(Heads(wider, draw(st.booleans()), draw(st.booleans()))))
        if draw(st.booleans()):
            layers.append(nn.LayerNorm(wider, elementwise_affine=draw(st.booleans()), bias=draw(st.booleans())))
        width = wider
    return [*layers, nn.Linear(width, 1)], x


def batch_norm(draw, dims, channels):
    """With an eps that keeps a stack of them over a few samples from multiplying rounding errors by 316 each."""
    affine, tracks = draw(st.booleans()), draw(st.booleans())
    norm = of(dims, "BatchNorm")(channels, eps=0.1, affine=affine, track_running_stats=tracks)
    return norm.train(draw(st.booleans()))


@st.composite
def convolutions(draw):
    """(layers, x)"""
    dims, channels, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3)), []
    x = torch.randn(draw(st.integers(1, 3)), channels, *(draw(st.integers(4, 7)) for _ in range(dims)))
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, channels]))
        wider = groups * draw(st.integers(1, 2))
        layers.append(
            draw(st.sampled_from([convolution, convolution, transposed]))(draw, dims, channels, wider, groups)
        )
        if draw(st.booleans()):
            layers.append(batch_norm(draw, dims, wider))
        layers.append(nn.PReLU(wider) if draw(st.integers(0, 7)) == 0 else draw(ACTIVATIONS)())
        channels = wider
        if draw(st.booleans()):
            layers.append(
                Residual(nn.Sequential(of(dims, "Conv")(channels, channels, 3, padding=1), draw(ACTIVATIONS)()))
            )
        try:
            shape = nn.Sequential(*layers)(x).shape[1:]
        except (RuntimeError, ValueError):  # a kernel larger than what is left of the image; one element to normalise
            hypothesis.reject()
        norms = [None, nn.LayerNorm(shape)]
        if shape[1:].numel() > 1:
            if GROUP_NORM_IS_SOUND:
                norms += [nn.GroupNorm(groups, channels), nn.GroupNorm(1, channels, affine=False)]
            norms.append(of(dims, "InstanceNorm")(channels, affine=draw(st.booleans())))
        if norm := draw(st.sampled_from(norms)):
            layers.append(norm)
        if min(shape[1:]) < 4:
            break
        if draw(st.booleans()):
            layers.append(draw(st.sampled_from([pool, pool, resized]))(draw, dims))
    return [*layers, nn.Flatten(), nn.LazyLinear(1)], x


def convolution(draw, dims, channels, wider, groups):
    same = draw(st.booleans())
    return of(dims, "Conv")(
        channels,
        wider,
        kernel_size=draw(st.integers(1, 3)),
        stride=1 if same else draw(st.integers(1, 2)),
        padding="same" if same else draw(st.sampled_from([0, 1, "valid"])) if groups == 1 else 1,
        dilation=draw(st.integers(1, 2)) if same else 1,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    )


def transposed(draw, dims, channels, wider, groups):
    return of(dims, "ConvTranspose")(
        channels,
        wider,
        kernel_size=draw(st.integers(1, 3)),
        stride=draw(st.integers(1, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
    )


def pool(draw, dims):
    kind = draw(st.sampled_from(["MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool"]))
    if kind.startswith("Adaptive"):
        return of(dims, kind)(draw(st.integers(1, 3)))
    return of(dims, kind)(draw(st.integers(2, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 1)))


def resized(draw, dims):
    kinds = [
        nn.Upsample(scale_factor=2),
        of(dims, "ConstantPad")(1, 0.5),
        of(dims, "ReplicationPad")(1),
        nn.Dropout(0.0),
    ]
    return draw(st.sampled_from([*kinds, of(dims, "ReflectionPad")((1, 2) * dims), of(dims, "CircularPad")(1)]))


@st.composite
def critics(draw):
    """(critic, x): one to six layers of every kind, odd sizes, residual joins; float64."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    layers, x = draw(st.one_of(perceptrons(), convolutions()))
    critic = nn.Sequential(*layers)
    critic(x)  # settles lazy layers
    return critic.double(), x.double()


def is_on_a_kink(critic, x, *condition):
    """Whether rounding decides: the sign of what a layer is given, as of rows that a norm has made equal, or which of a
    window's elements is its maximum."""
    rounding = []

    def note(layer, args):
        x = args[0]
        rounding.append(((x != 0) & (x.abs() < 1e-13)).any().item())
        if "MaxPool" in type(layer).__name__:
            rounding.append(not torch.equal(slope(layer, x), slope(layer, x * (1 + 1e-12 * torch.randn_like(x)))))

    @torch.enable_grad()
    def slope(layer, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(layer.forward(x).sum(), x)[0]

    layers = (layer for layer in critic.modules() if not isinstance(layer, ParametrizationList))
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    with torch.no_grad():
        critic(x, *condition)
    for hook in hooks:
        hook.remove()
    return any(rounding)


def is_one_node(value):
    """Whether the penalty's graph has it."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "PenaltyBackward":
            return True
        nodes += [behind for behind, _ in node.next_functions]
    return False
