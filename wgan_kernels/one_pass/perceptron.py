"""A critic of linear layers and activations alone: two kernels for all of its sweeps."""

import copy
import math

import torch
from torch import nn

from ..rules import _perceptron, linear
from ..rules._smooth import CURVES
from . import losses
from .given import Cat
from .layer import Layer
from .nodes import Piecewise, Reshape
from .program import Refused, Sweeps, summed
from .smooth import Smooth


def recognised(steps):
    """The Perceptron that a program's steps are, or None."""
    if any(reads != [i] for i, (_, reads) in enumerate(steps)):
        return None
    nodes = [node for node, _ in steps]
    first = next((i for i, node in enumerate(nodes) if not isinstance(node, (Reshape, Cat))), len(nodes))
    behind = next((i for i, node in enumerate(nodes) if i > first and isinstance(node, Reshape)), len(nodes))
    chain = _chain(nodes[first:behind])
    if chain is None or not all(isinstance(node, Reshape) for node in nodes[behind:]):
        return None
    made = Perceptron(nodes[:first], chain, nodes[behind:])
    # What is given from outside would receive of a curved one what the kernels do not tell.
    return None if made.places and any(made.curves) else made


def _chain(nodes):
    """[(linear layer, (slope, the number of the curve) of the activation behind it or None)], or None."""
    chain = []
    for node in nodes:
        if isinstance(node, Layer) and node.maps is linear.MAPS:
            chain.append((node, None))
        elif chain and chain[-1][1] is None and (activation := _activation(node)) is not None:
            chain[-1] = chain[-1][0], activation
        else:
            return None
    return chain if len(chain) > 1 else None


def _activation(node):
    if isinstance(node, Piecewise) and node.maps.slope is not None:
        return node.maps.slope, 0
    if isinstance(node, Smooth) and node.curve.name is not None:
        return 1.0, CURVES.index(node.curve.name)
    return None


class Perceptron(Sweeps):
    """y_l = φ_l(W_l y_{l−1} + b_l), between other shapes of the samples and of the scores.

    Values and δ are kept by blocks of samples, as the kernels have them.
    places: of what it is given beside the samples, see ``given.Cat``.
    is_whole: whether the tangent is one of all that the first layer reads.
    """

    def __init__(self, before, chain, behind):
        super().__init__()
        # Of nodes copies, which nobody tells who reads them: samples come channel by channel.
        self.before, self.behind = [copy.copy(node) for node in before], behind
        self.layers, activations = zip(*chain, strict=True)
        self.bent_behind = [any(activations[i:]) for i in range(len(chain))]
        self.slopes, self.curves = map(list, zip(*(given or (1.0, 0) for given in activations), strict=True))
        self.places = [place for node in before if isinstance(node, Cat) for place in node.places]
        for node in self.before:
            node.bent_behind = self.bent_behind[0]
        calls = [getattr(node, "call", None) for node in before]
        self.flattens = all(isinstance(call, nn.Flatten) and call.start_dim == 1 for call in calls)
        self.forget()

    def takes(self, x, results):
        """Whether the kernels take samples x, and gain by it."""
        weights, biases = self._parameters(results)
        width = weights[0].shape[1] if self.places else x[:1].numel()  # of others it is seen when they are read
        return _perceptron.serve(x, width, weights, biases)

    def copied(self):
        another = copy.copy(self)
        another.before = [copy.copy(node) for node in self.before]
        return another

    def give(self, results, times=1):
        self.results = results
        for node in self.before:
            node.give(results, times)

    def _parameters(self, results):
        weights, biases = zip(*(layer.weights(results) for layer in self.layers), strict=True)
        return list(weights), list(biases)

    def begin(self, x, split, seed):
        shape, like = x.shape[1:], self._read(x, split)
        asked = 0 if any(self.results[place].requires_grad for place in self.places) else split
        given = seed(like).reshape(len(x), -1), self.weights, self.biases, self.slopes, self.curves, split, asked
        scores, gradient, *self.kept = _perceptron.begin(self.x, *given)
        if self.places:
            for node in reversed(self.before):
                (gradient,) = node.pullback(gradient, None)
        return scores.view(like.shape), gradient[split - asked :].view(-1, *shape)

    def losses(self, x, batch, weight, factor, target, one_sided):
        if self.places:
            return super().losses(x, batch, weight, factor, target, one_sided)
        self._read(x, 2 * batch)
        given = self.weights, self.biases, self.slopes, self.curves, target, one_sided
        told, grads = _perceptron.step(self.x, *given, weight, factor)
        return dict(zip(losses.NAMES, told, strict=True)), self._received(grads)

    def penalty(self, x, target, one_sided):
        self._read(x, 0)
        ahead = [node.ahead for node in self.before if isinstance(node, Cat)]
        if None in ahead:
            return super().penalty(x, target, one_sided)
        given = self.weights, self.biases, self.slopes, self.curves, target, one_sided
        features = sum(ahead), math.prod(x.shape[1:])
        penalty, derivative, norms, *self.kept = _perceptron.penalty(self.x, *given, *features)
        self.is_whole = True
        return penalty, derivative, norms

    def _read(self, x, split):
        """Takes in samples and parameters. Returns a tensor like the scores."""
        if x.dim() > 2 or not self.flattens:
            for node in self.before:
                x = node.forward(split, x)
        self.weights, self.biases = self._parameters(self.results)
        if x.dim() < 2 or x.shape[-1] != self.weights[0].shape[1] or x.dtype is not torch.float32:
            raise Refused(f"its first linear layer is given {tuple(x.shape)} of {x.dtype}")
        like = x.new_empty(*x.shape[:-1], len(self.weights[-1]))
        for node in self.behind:
            like = node.forward(split, like)
        self.x, self.split, self.is_whole = x.flatten(1).contiguous(), split, False
        return like

    def finish(self, tangent):
        if self.places and not self.is_whole:
            for node in self.before:
                tangent = node.pushforward(tangent)
        t = tangent.flatten(1).contiguous()
        return self._received(_perceptron.finish(self.x, t, *self.kept, self.weights, self.slopes, self.curves))

    def _received(self, grads):
        """[(parameter, gradient)]. grads: of the weights, then of the biases where the kernel tells them."""
        of_biases = grads[len(self.weights) :] or map(self._zeros, range(len(self.weights)))
        if not self.split:  # autograd has no way to the others
            of_biases = [grad if bent else None for grad, bent in zip(of_biases, self.bent_behind, strict=True)]
        received = [*zip(self.weights, grads, strict=False), *zip(self.biases, of_biases, strict=True)]
        received = [(param, grad) for param, grad in received if param is not None and param.requires_grad]
        received += [pair for node in self.before for pair in node.gradients()]
        return summed((param, grad) for param, grad in received if grad is not None)

    def _zeros(self, index):
        """What a bias receives of the penalty of a piecewise linear critic, if anything."""
        bias = self.biases[index]
        return None if bias is None else torch.zeros_like(bias)

    def forget(self):
        for node in self.before:
            node.forget()
        self.x = self.weights = self.biases = self.kept = self.results = None
