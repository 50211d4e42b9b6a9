"""Each rule: its derivatives to the third, and what is dispatched for them."""

import pytest
import torch
from critics import Count, points
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

import wgan_kernels as wk

pytestmark = pytest.mark.usefixtures("however_small")

LAYERS = {
    "linear": (lambda x, w, b: F.linear(x, w, b), [(2, 3), (2, 3), (2,)]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1), [(2, 2, 5), (3, 2, 3), (3,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (1, 2), 1, 2, 2), [(1, 2, 4, 5), (2, 1, 2, 3), (2,)]),
    "conv2d to one channel": (lambda x, w: F.conv2d(x, w, None, 2, 1, 2), [(2, 1, 6, 5), (3, 1, 2, 3)]),
    "conv2d to few channels": (
        lambda x, w, b: F.conv2d(x, w, b, 1, (1, 2), (2, 1)),
        [(1, 2, 4, 3), (1, 2, 2, 3), (1,)],
    ),
    "conv3d": (lambda x, w, b: F.conv3d(x, w, b), [(1, 1, 3, 3, 2), (1, 1, 2, 2, 2), (1,)]),
    "transposed": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), [(1, 1, 2, 1), (1, 5, 3, 3), (5,)]),
    "transposed to few channels": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1),
        [(1, 2, 2, 3), (2, 2, 3, 3), (2,)],
    ),
    "relu": (F.relu, [(3, 4)]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.3), [(3, 4)]),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.7), [(3, 4)]),
    "prelu": (lambda x, w: F.prelu(x, w), [(2, 3, 2), (3,)]),
    "prelu shared": (lambda x, w: F.prelu(x, w), [(3, 4), (1,)]),
    "softplus": (F.softplus, [(3, 4)]),
    "silu": (F.silu, [(3, 4)]),
    "elu": (F.elu, [(3, 4)]),
    "hardswish": (lambda x: F.hardswish(3 * x), [(3, 4)]),
    "hardsigmoid": (lambda x: F.hardsigmoid(3 * x), [(3, 4)]),
    "hardsigmoid in place": (lambda x: F.hardsigmoid(3 * x, inplace=True), [(3, 4)]),
    "abs": (torch.abs, [(3, 4)]),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2, 1, 1), [(2, 2, 5)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, (3, 2), 2, (1, 0), 1, True), [(1, 2, 6, 5)]),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2, 1), [(1, 1, 3, 2, 3)]),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2, 1, 1), [(2, 2, 5)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0), True, False), [(1, 2, 6, 5)]),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, 1, divisor_override=3), [(1, 1, 3, 2, 3)]),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (2, None)), [(1, 2, 5, 3)]),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (None, 2)), [(1, 2, 3, 5)]),
    "reflection": (lambda x: F.pad(x, (1, 2, 2, 0), "reflect"), [(1, 2, 3, 4)]),
    "replication": (lambda x: F.pad(x, (2, 1), "replicate"), [(1, 2, 4)]),
    "same": (lambda x, w, b: F.conv2d(x, w, b, 1, "same", (2, 1)), [(1, 2, 4, 5), (2, 2, 2, 4), (2,)]),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 2, 3), (2,), (2,)]),
    "batch_norm plain": (lambda x: F.batch_norm(x, None, None, training=True), [(4, 2)]),
    "batch_norm evaluated": (
        lambda x, w, b: F.batch_norm(x, torch.tensor([0.5, -1.0]).double(), torch.tensor([0.7, 2.0]).double(), w, b),
        [(3, 2, 3), (2,), (2,)],
    ),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7),
        [(1, 2, 3, 2), (1, 2, 3, 2), (1, 2, 3, 3)],
    ),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (2, 3), w, b), [(2, 2, 3), (2, 3), (2, 3)]),
    "layer_norm plain": (lambda x: F.layer_norm(x, (4,)), [(3, 4)]),
}


@pytest.mark.parametrize(("layer", "shapes"), LAYERS.values(), ids=LAYERS)
def test_gradients_of_every_rule(layer, shapes):
    inputs = [points(*shape).requires_grad_() for shape in shapes]

    @wk.second_order()
    def function(x, *others):
        return layer(F.linear(x, torch.eye(x.shape[-1], dtype=x.dtype)), *others)  # some rules want a layer before them

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)

    def slope(*inputs):
        out = function(*inputs)
        return torch.autograd.grad(out.sin().sum(), inputs, create_graph=True)

    assert gradgradcheck(slope, inputs)


VIEWS = {
    "detach",
    "view",
    "expand",
    "squeeze",
    "unsqueeze",
    "t",
    "transpose",
    "permute",
    "_unsafe_view",
    "_reshape_copy",
}


def double_backward(layer):
    """What a penalty's backward dispatches for ``layer`` between two convolutions, beside what it does without."""

    def count(*layers):
        critic, x = nn.Sequential(*layers), torch.randn(2, 8, 8, 8, requires_grad=True)
        with wk.second_order():
            scores = critic(x)
        (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        with Count() as counted:
            torch.autograd.grad(grad.square().sum(), list(critic.parameters()), allow_unused=True)
        return counted.counts

    counts = count(nn.Conv2d(8, 8, 3, padding=1), layer, nn.LazyConv2d(8, 1))
    counts.subtract(count(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)))
    return {name: n for name, n in counts.items() if n and name not in VIEWS}


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


# For each kind: the linear map or mask, once, and what the bias before it would have received.
COUNTS = {
    "convolution": (nn.Conv2d(8, 8, 3), {"convolution": 1, "convolution_backward.w": 1}),
    "convolution same": (
        nn.Conv2d(8, 8, 2, padding="same"),
        {"convolution": 1, "convolution_backward.w": 1, "constant_pad_nd": 1},
    ),
    "transposed": (nn.ConvTranspose2d(8, 8, 3), {"convolution": 1, "convolution_backward.w": 1}),
    "to few channels": (
        nn.Conv2d(8, 4, 3),
        {"bmm": 1, "col2im": 1, "convolution_backward.w": 1, "flip": 2, "empty_like": 1, "clone": 1},
    ),
    "linear": (nn.Linear(8, 8), {"mm": 2}),
    "relu": (nn.ReLU(), {"threshold_backward": 1, "zeros_like": 1}),
    "leaky_relu": (nn.LeakyReLU(0.2), {"leaky_relu_backward": 1, "zeros_like": 1}),
    "hardtanh": (nn.Hardtanh(), {"hardtanh_backward": 1, "zeros_like": 1}),
    "hardsigmoid": (nn.Hardsigmoid(), {"hardtanh_backward": 1, "div": 1, "zeros_like": 1}),
    "abs": (Call(torch.abs), {"sign": 1, "mul": 1, "zeros_like": 1}),
    "prelu": (
        nn.PReLU(8),
        {"_prelu_kernel_backward": 1, "mul": 1, "gt": 1, "masked_fill": 1, "sum": 1, "zeros_like": 1},
    ),
    "max_pool": (nn.MaxPool2d(2), {"gather": 1, "zeros_like": 1}),
    "avg_pool": (nn.AvgPool2d(2), {"avg_pool2d": 1, "zeros_like": 1}),
    "adaptive_max_pool": (nn.AdaptiveMaxPool2d(3), {"gather": 1, "zeros_like": 1}),
    "adaptive_avg_pool": (nn.AdaptiveAvgPool2d(3), {"_adaptive_avg_pool2d": 1, "zeros_like": 1}),
    "adaptive_avg_pool to 1": (nn.AdaptiveAvgPool2d(1), {"sum": 1, "div": 1}),
    "reflection": (nn.ReflectionPad2d(1), {"reflection_pad2d": 1, "zeros_like": 1}),
    "replication": (nn.ReplicationPad2d(1), {"replication_pad2d": 1, "zeros_like": 1}),
    "batch_norm evaluated": (nn.BatchNorm2d(8).eval(), {"mul": 4, "sum": 1}),
    "dropout": (nn.Dropout(), {"mul": 1}),
}
BEHIND_A_CURVE = {"convolution_backward.wb": 1, "add": 1}  # the pass back, into what the weight has received already
COUNTS |= {
    "tanh": (nn.Tanh(), {"tanh_backward": 2, "mul": 3, **BEHIND_A_CURVE}),
    "softplus": (
        nn.Softplus(),
        {"softplus_backward": 1, "ones_like": 1, "slice": 1, "mul": 1, "addcmul": 1, "mul_": 1, **BEHIND_A_CURVE},
    ),
    "silu": (
        nn.SiLU(),
        {"sigmoid": 1, "mul": 1, "sigmoid_backward": 1, "silu_backward": 1, "mul_": 3, "add_": 2, **BEHIND_A_CURVE},
    ),
    "hardswish": (
        nn.Hardswish(),
        {"hardswish_backward": 1, "mul": 1, "hardtanh_backward": 1, "div_": 1, **BEHIND_A_CURVE},
    ),
    "elu": (nn.ELU(), {"elu_backward": 1, "mul": 1, "ge": 1, "masked_fill_": 1, **BEHIND_A_CURVE}),
    "batch_norm": (
        nn.BatchNorm2d(8),
        {
            "native_batch_norm_backward": 2,
            "ones_like": 2,
            "mul": 8,
            "sum": 1,
            "neg": 2,
            "div": 3,
            "addcmul": 3,
            **BEHIND_A_CURVE,
        },
    ),
}


@pytest.mark.parametrize(("layer", "expected"), COUNTS.values(), ids=COUNTS)
def test_what_each_kind_dispatches(layer, expected):
    assert double_backward(layer) == expected


# PyTorch's own, whose double backward is the linear map again: no zeros, no pass into the first forward.
SHAPES = {
    "reshape": (lambda x: x.reshape(2, 8, 4, 16), {}),
    "permute": (lambda x: x.permute(0, 1, 3, 2), {}),
    "constant pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), {"constant_pad_nd": 1}),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), {"upsample_nearest2d": 1}),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), {"upsample_bilinear2d": 1}),
    "bicubic": (lambda x: F.interpolate(x, 5, mode="bicubic", antialias=True), {"_upsample_bicubic2d_aa": 1}),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), {"pixel_shuffle": 1}),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), {"pixel_unshuffle": 1}),
    "flip": (lambda x: x.flip(2), {"flip": 1}),
    "roll": (lambda x: x.roll(1, 3), {"roll": 1}),
    "cat": (
        lambda x: torch.cat([x, x.flip(3)], 1),
        {"slice_backward": 2, "add": 1, "flip": 1},
    ),  # parts padded with zeros, and their sum
    "stack": (lambda x: torch.stack([x, x], 2).flatten(1, 2), {"select_backward": 2, "add": 1}),
    "index": (lambda x: x[:, [3, 0, 1, 2]], {"index": 1}),
    "unfold": (lambda x: F.fold(F.unfold(x, 2, stride=2), 8, 2, stride=2), {"im2col": 1, "col2im": 1}),
    "maximum over channels": (lambda x: x.unflatten(1, (2, 4)).max(2)[0], {"gather": 1}),
}


@pytest.mark.parametrize(("function", "expected"), SHAPES.values(), ids=SHAPES)
def test_shape_operators_send_no_zeros(function, expected):
    assert double_backward(Call(function)) == expected


@pytest.mark.parametrize("is_called", [False, True], ids=["one node", "by calls"])
def test_no_pass_is_wasted(is_called):
    """Per convolution: forward, input gradient, tangent forward, weight gradient; per activation two pullbacks.

    The first layer's tangent comes from the penalty itself, and its input gradient is the last of the first backward.
    """
    layers = 3
    critic = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.LeakyReLU(0.2)) for _ in range(layers)), nn.Conv2d(6, 1, 3)
    )
    called = (lambda x: critic(x)) if is_called else critic
    with Count() as count:
        wk.gradient_penalty(called, torch.randn(2, 6, 6, 6), torch.randn(2, 6, 6, 6)).backward()
    convolutions = {name: n for name, n in count.counts.items() if name.startswith("convolution")}
    assert convolutions == {
        "convolution": 2 * layers + 1,  # the last layer's tangent is not asked for: its δ is a constant
        "convolution_backward.x": layers + 1,
        "convolution_backward.w": layers + 1,
    }
    assert count.counts["leaky_relu_backward"] == 2 * layers
    assert count.counts["zeros_like"] == layers  # for each bias behind an activation


def test_curvature_is_not_followed_into_the_input():
    """Nobody asks for the penalty's gradient in x̂, for which the first layer's pullback would run once more."""
    critic = nn.Sequential(nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Conv2d(6, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1))
    called = [critic]  # from a list, so that it is
    with Count() as count:
        wk.gradient_penalty(lambda x: called[0](x), torch.randn(2, 6, 6, 6), torch.randn(2, 6, 6, 6)).backward()
    assert {name: n for name, n in count.counts.items() if name.startswith("convolution_backward")} == {
        "convolution_backward.x": 2,  # the first pass
        "convolution_backward.w": 2,  # of the tangents
        "convolution_backward.wb": 1,  # what comes back through the first tanh
        "convolution_backward.xwb": 1,  # and through the second
    }
