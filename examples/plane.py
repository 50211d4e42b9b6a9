"""What the experiments on distributions in the plane share: perceptrons as published, and value surfaces."""

import torch
from torch import nn
from turns import perceptron

REACH, SIDE = 2.2, 90  # of a value surface: from −REACH to REACH, at SIDE² points


def relu_network(*widths: int) -> nn.Sequential:
    """A perceptron with ReLUs, [B, widths[0]] → [B, widths[-1]]; weights as He et al. (2015) have it, biases 0."""
    network = perceptron(*widths, activation=nn.ReLU)
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return network


@torch.no_grad()
def values(network: nn.Module) -> torch.Tensor:
    """A critic's scores over the plane, rows upwards: [SIDE, SIDE], from 0, the lowest, to 1."""
    line = torch.linspace(-REACH, REACH, SIDE)
    scores = network(torch.cartesian_prod(line, line)).reshape(SIDE, SIDE).T.double()  # a clipped one's are tiny
    return (scores - scores.min()) / (scores.max() - scores.min()).clamp(min=1e-300)


def surface(axes, heights: torch.Tensor, real: torch.Tensor, levels: int = 16) -> None:
    """Draws ``values``, light where they are high, and points of the data [N, 2]."""
    line = torch.linspace(-REACH, REACH, SIDE)
    axes.contourf(line, line, heights, levels=levels, cmap="Greys_r", alpha=0.75)
    axes.contour(line, line, heights, levels=levels, colors="0.3", linewidths=0.4)
    axes.plot(*real.T, ".", color="C0", markersize=2.5, label="real")
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
