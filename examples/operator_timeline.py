"""A gradient penalty operator by operator, by plain PyTorch and by this library: the figure of docs/second_order.md.

    python examples/operator_timeline.py --out docs/img/double-backward.png

Forward, backward to x̂, and backward to the parameters, of the critic of three convolutions of seed S3 on 28×28 images,
by torch.profiler: of ``rounds`` interleaved runs of each the fastest, so that what others do on the machine is left
out. Operators that only carry zeros are hatched. Needs the ``train`` extra.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from script import check_flags, main
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

import wgan_kernels as wk
from wgan_kernels.training._optional import optional

WAYS = {"PyTorch": wk.reference, "wgan_kernels": wk}
PHASES = ("forward", "gradient at x̂", "of the penalty, to the parameters")
COLOURS = {
    "convolution": "C0",
    "its input gradient": "C2",
    "its weight gradient": "C1",
    "both gradients": "C5",
    "its weight gradient by a convolution whose filter is the feature map": "C3",
    "activation, mask": "C4",
}
CONVOLUTION, INPUT, WEIGHT, BOTH, AS_CONVOLUTION, MASK = COLOURS
KERNEL = 3


@dataclass(frozen=True)
class Options:
    """A gradient penalty operator by operator, by plain PyTorch and by this library."""

    out: Path = Path("operator_timeline.png")
    """The figure to write (PNG); a file of that name is replaced."""
    batch_size: int = 64
    """Images."""
    rounds: int = 20
    """Runs of each way, in turns."""
    threads: int = 1
    """Of PyTorch."""
    seed: int = 0
    """Of weights and images."""

    def check(self) -> None:
        """Raises UsageError on a value out of range."""
        check_flags(self, {"batch_size": 1, "rounds": 1, "threads": 1})


class Bar(NamedTuple):
    """One operator: when it began and how long it took, in ms from the start of the run."""

    start: float
    length: float
    kind: str
    is_wasted: bool


def s3_critic() -> nn.Sequential:
    layers = []
    for channels, wider in pairwise([1, 32, 64, 128]):
        layers += [nn.Conv2d(channels, wider, KERNEL, 2, 1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 1))


def penalty(of, critic: nn.Module, x: torch.Tensor) -> None:
    """Leaves the gradients of mean (‖∇f(x)‖ − 1)² in the parameters; ``of``: wgan_kernels or its reference."""
    critic.zero_grad()
    x = x.clone().requires_grad_()
    with record_function(PHASES[0]), of.second_order():
        scores = critic(x)
    with record_function(PHASES[1]):
        (grad,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    x.requires_grad_(False)
    with record_function(PHASES[2]):
        of.gradient_norm_penalty(grad).backward()


def timeline(events: Sequence) -> tuple[list[Bar], list[tuple[float, float]]]:
    """(operators, (start, end) of each phase) of one profiled run, in ms."""
    spans = {event.name: event.time_range for event in events if event.name in PHASES}
    begin = spans[PHASES[0]].start
    bars = []
    for event in events:
        last = spans[PHASES[2]]
        kind, is_wasted = kind_of(event, is_last=last.start <= event.time_range.start < last.end)
        if kind is not None:
            start, end = event.time_range.start - begin, event.time_range.end - begin
            bars.append(Bar(start / 1e3, (end - start) / 1e3, kind, is_wasted))
    return bars, [((spans[name].start - begin) / 1e3, (spans[name].end - begin) / 1e3) for name in PHASES]


def kind_of(event, is_last: bool) -> tuple[str | None, bool]:
    """(kind, whether it carries nothing but zeros); kind None: not to be drawn."""
    node = event.cpu_parent
    while node is not None and "evaluate_function" not in node.name:
        node = node.cpu_parent
    node = "" if node is None else node.name.rpartition(" ")[2]
    # The graph of the first forward pass, run again from the penalty: with this critic, for zeros.
    is_wasted = is_last and node in ("ConvolutionBackward0", "LeakyReluBackward0")
    name = event.name.removeprefix("aten::")
    if name in ("mkldnn_convolution", "cudnn_convolution"):
        return AS_CONVOLUTION if event.input_shapes[1][-1] > KERNEL else CONVOLUTION, False
    if name == "convolution_backward":
        return BOTH if is_wasted else WEIGHT if is_last else INPUT, is_wasted
    if name in ("bmm", "col2im"):  # the first layer's, in another form
        return INPUT, False
    if name in ("leaky_relu", "leaky_relu_backward"):
        return MASK, is_wasted
    if name == "zeros_like" and node == "LeakyReluBackwardBackward0":
        return MASK, True
    return None, False


def fastest(options: Options) -> dict[str, tuple[list[Bar], list[tuple[float, float]]]]:
    """The timeline of each way's fastest run."""
    torch.manual_seed(options.seed)
    critic, x = s3_critic(), torch.randn(options.batch_size, 1, 28, 28)
    wk.gradient_penalty(critic, x, x)  # from here on the C library keeps freed memory, for both ways
    best = {}
    for round in range(options.rounds + 1):
        for way, of in WAYS.items():
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
                penalty(of, critic, x)
            found = timeline(profiled.events())
            if round and (way not in best or found[1][-1][1] < best[way][1][-1][1]):  # the first warms up
                best[way] = found
    return best


def draw(options: Options) -> None:
    lanes = fastest(options)
    optional("matplotlib", "writing the figure").use("Agg")
    pyplot = optional("matplotlib.pyplot", "writing the figure")
    drawn, axes = pyplot.subplots(figsize=(13, 4.1), constrained_layout=True)
    total = max(phases[-1][1] for _, phases in lanes.values())
    for row, (way, (bars, phases)) in enumerate(lanes.items()):
        y = -1.6 * row
        for (start, end), name in zip(phases, PHASES, strict=True):
            axes.barh(y, end - start, left=start, height=0.8, color="0.9", edgecolor="none")
            axes.annotate(f" {name}\n {end - start:.1f} ms", (start, y + 0.42), fontsize=9, va="bottom")
            axes.vlines(start, y - 0.4, y + 0.8, color="0.4", linewidth=0.8)
        for bar in bars:
            style = {"hatch": "////", "edgecolor": "white"} if bar.is_wasted else {"edgecolor": "none"}
            axes.barh(y, bar.length, left=bar.start, height=0.8, color=COLOURS[bar.kind], linewidth=0, **style)
        wasted = sum(bar.length for bar in bars if bar.is_wasted)
        print(f"{way}: {phases[-1][1]:.2f} ms, of which {wasted:.2f} ms for zeros")
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    axes.set_title(f"a gradient penalty: three convolutions, batch {options.batch_size}, {threads}", loc="left")
    axes.set_yticks([0, -1.6], list(lanes))
    axes.set(xlim=(0, 1.01 * total), ylim=(-2.1, 0.9), xlabel="ms")
    axes.spines[["top", "right", "left"]].set_visible(False)
    patch = optional("matplotlib.patches", "writing the figure").Patch
    handles = [patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
    handles += [
        patch(facecolor="C5", edgecolor="white", hatch="////", label="hatched: only carries zeros"),
        patch(color="0.9", label="small operators, dispatch, Python"),
    ]
    drawn.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    drawn.savefig(options.out, dpi=110)
    pyplot.close(drawn)
    print(options.out)


if __name__ == "__main__":
    sys.exit(main(Options, draw, __doc__))
