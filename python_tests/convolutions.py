"""Convolutions that kernels of our own serve, by them and by PyTorch."""

import contextlib
import itertools

import pytest
import torch
from cases import assert_as_good, needs_compiled

import wgan_kernels as wk
from wgan_kernels import _dispatch
from wgan_kernels.rules import _pairs, _winograd, _winograd_same
from wgan_kernels.rules.conv import MAPS, Geometry

NAMES = ("winograd_down", "winograd_up", "winograd_weights")


OF_PAIRS = [
    needs_compiled,
    pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="needs a processor with AVX-512 BF16"),
    pytest.mark.usefixtures("pairs"),
]


def last(t):
    return t.contiguous(memory_format=torch.channels_last)


def geometry(padding=1, output_padding=0, transposed=False, dilation=1, stride=2, groups=1):
    pairs = [n if isinstance(n, tuple) else (n, n) for n in (stride, padding, dilation, output_padding)]
    return Geometry(*pairs[:3], transposed, pairs[3], groups)


def layer(x, in_channels, out_channels, how, taps=4):
    """(x, w, b, δ), images in channels-last memory."""
    channels = (in_channels, out_channels) if how.transposed else (out_channels, in_channels)
    w, b = torch.randn(*channels, taps, taps), torch.randn(out_channels)
    return last(x), w, b, last(torch.randn_like(torch.convolution(x, w, b, *how)))


def way(how):
    """The minimal filtering of its stride."""
    return _winograd if how.stride == (2, 2) else _winograd_same


def ours(x, w, b, delta, how):
    return [
        way(how).forward(x, w, b, how),
        way(how).pullback(delta, w, x, how),
        way(how).weight_gradient(x, delta, w, how),
    ]


def theirs(x, w, b, delta, how):
    grads = torch.ops.aten.convolution_backward(delta, x, w, None, *how, (True, True, False))
    return [torch.convolution(x, w, b, *how), *grads[:2]]


@contextlib.contextmanager
def calls(*names):
    """Each of these operators is called within at least once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield
    assert {f"wgan_kernels::{name}" for name in names} <= {event.key for event in profile.key_averages()}


def served(way, x, w, how):
    """The sweeps that it serves, in a row."""
    return " ".join(sweep for sweep in ("forward", "pullback", "weights") if way.serve(x, w, how, sweep))


def assert_products_of_pairs_are_refused(is_served, monkeypatch):
    """For another backend, within a compiler, and by a processor without the instruction or vectors."""
    assert is_served()
    with wk.use_backend("reference"):
        assert not is_served()
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not is_served()
    with monkeypatch.context() as patch:
        patch.setattr(_pairs, "has_instruction", lambda: False)
        assert not is_served()
    monkeypatch.setattr(_dispatch, "has_vectors", lambda: False)
    assert not is_served()


def assert_layer_as_good(x, w, b, delta, how):
    """The layer's result and every combination of its gradients, beside PyTorch's and in float64."""
    convolution, backward = torch.convolution, torch.ops.aten.convolution_backward
    assert_as_good(MAPS.forward(x, w, b, how), convolution(x, w, b, *how), convolution(*double(x, w, b), *how))
    plain = backward(delta, x, w, [len(b)], *how, (True, True, True))
    truth = backward(*double(delta, x, w), [len(b)], *how, (True, True, True))
    for asked in itertools.product((True, False), repeat=3):
        grads = MAPS.gradients(x, delta, w, how, asked)
        assert [grad is not None for grad in grads] == list(asked)
        for grad, eager, exact in zip(grads, plain, truth, strict=True):
            if grad is not None:
                assert_as_good(grad, eager, exact)


def narrow(*tensors):
    return [t if t is None else t.bfloat16() for t in tensors]


def double(*tensors):
    return [t if t is None else t.double() for t in tensors]


KINDS = {
    "4×4 down": (geometry(), 4),
    "3×3 down": (geometry(), 3),
    "4×4 up": (geometry(transposed=True), 4),
    "3×3 up": (geometry(transposed=True), 3),
    "3×3 of stride 1": (geometry(stride=1), 3),
}
each_kind = pytest.mark.parametrize(("how", "taps"), KINDS.values(), ids=KINDS)
both_ways = pytest.mark.parametrize("how", [geometry(), geometry(transposed=True)], ids=["down", "up"])
