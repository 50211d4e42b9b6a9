"""Initial weights. Each function sets every linear layer and convolution of a network, and their biases to zero."""

from collections.abc import Iterator

from torch import nn

STD = 0.02


def normal_(network: nn.Module) -> None:
    """N(0, 0.02²), as in DCGAN (Radford et al. 2015, section 4)."""
    for layer in _layers(network):
        nn.init.normal_(layer.weight, std=STD)


def glorot_(network: nn.Module, gain: float = 1.0) -> None:
    """U(−a, a), a = gain·√(6 / (fan_in + fan_out)): Keras' default (Glorot and Bengio 2010, equation 16)."""
    for layer in _layers(network):
        nn.init.xavier_uniform_(layer.weight, gain)


def he_(network: nn.Module) -> None:
    """U(−a, a), a = √(6 / fan_in) (He et al. 2015, equation 10, as a uniform distribution)."""
    for layer in _layers(network):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            yield layer
