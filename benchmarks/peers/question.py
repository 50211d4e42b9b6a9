"""A case's question, as another process is told it. ``networks``: {name: (a Sequential, the shape of its samples)}."""

from ..networks import describe


def task(name, networks, **options):
    """As JSON: layers and number of parameters of each network, and what else the task needs."""
    return {
        "name": name,
        "networks": {key: describe(network, *shape) for key, (network, shape) in networks.items()},
        "parameters": {key: len(list(network.parameters())) for key, (network, _) in networks.items()},
    } | options


def weights(networks):
    """As arrays: ``critic.0``, ``critic.1``, …"""
    return {
        f"{key}.{index}": param
        for key, (network, _) in networks.items()
        for index, param in enumerate(network.parameters())
    }
