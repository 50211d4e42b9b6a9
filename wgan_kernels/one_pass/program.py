"""The sweeps over all nodes, in the order of the program and back."""

import copy

import torch

from .. import _layout
from .._precision import wide
from ..ops.norm_penalty import with_derivative
from . import losses


class Refused(Exception):
    """The critic cannot be run as a program; the message names what in it, and why."""


def summed(received):
    """[(parameter, gradient)], each parameter once."""
    gradients = {}  # by identity: a parameter's hash is a function in Python
    for param, grad in received:
        _, before = gradients.get(id(param), (param, None))
        gradients[id(param)] = param, grad if before is None else before + grad
    return list(gradients.values())


class Sweeps:
    """What makes a critic's gradients: ``begin``, ``finish`` and ``forget``.

    Not for use by two threads at once, nor by two graphs: one sweep leaves its values to the next.
    """

    def __init__(self):
        self.spares = []

    def copied(self):
        """Another one of the same."""
        raise NotImplementedError

    def spare(self):
        """A copy that nobody uses just now; ``release`` gives it back."""
        try:
            another = self.spares.pop()
        except IndexError:
            another = self.copied()
        another.spares = self.spares
        return another

    def release(self):
        self.forget()
        spares, self.spares = self.spares, None  # a list in its own items would outlive the critic
        spares.append(self)

    @torch.no_grad()
    def step(self, x, weight, factor, target, one_sided):
        """A critic's loss with ``weight·factor`` times a ``gradient_norm_penalty``, and its gradients.

        Args:
            x: [3·B, …], real, fake and interpolated samples; overwritten.

        Returns:
            ({"loss", "wasserstein", "penalty", "gradient_norm"}, [(parameter, gradient)]).

        Raises:
            Refused: for what only shapes can tell.
        """
        try:
            return self.losses(x, len(x) // 3, weight, factor, target, one_sided)
        finally:
            self.forget()

    def losses(self, x, batch, weight, factor, target, one_sided):
        """The same where no gradients are enabled; what the sweeps have saved is left."""
        scores, gradient = self.begin(x, 2 * batch, lambda scores: losses.seed(scores, batch))
        how = {"target": target, "one_sided": one_sided}
        penalty, derivative, norms = with_derivative(gradient, weight * factor, **how)
        found = {"penalty": factor * penalty, "gradient_norm": norms.mean().to(gradient.dtype)}
        received = self.finish(derivative)
        real_scores, fake_scores, _ = wide(scores).split(batch)
        return losses.metrics(real_scores, fake_scores, weight, **found), received

    def begin(self, x, split, seed):
        """The first two sweeps: (scores, the gradient at the interpolated samples). Where no gradients are enabled.

        Args:
            x: [N, …], real and fake samples, then the interpolated ones; overwritten, if there are any of the former.
            split: where the latter begin.
            seed: (a tensor like the scores) → what each is weighted with; 1 from ``split`` on.
        """
        raise NotImplementedError

    def penalty(self, x, target, one_sided):
        """The same for samples that are all interpolated: (the mean ``gradient_norm_penalty``, its derivative with
        respect to the gradient, the norms).
        """
        _, gradient = self.begin(x, 0, torch.ones_like)
        return with_derivative(gradient, 1.0, target=target, one_sided=one_sided)

    def finish(self, tangent):
        """The other sweeps: [(parameter, gradient)]. Likewise."""
        raise NotImplementedError

    def forget(self):
        """Lets go of what the sweeps have saved."""
        raise NotImplementedError


class Program(Sweeps):
    """A feed-forward critic: nodes, and for each the values that it reads. Value 0 is the input, i + 1 node i's result.

    perceptron: the ``Perceptron`` that it is, or None; see ``suited``.
    """

    def __init__(self, steps, perceptron=None):
        super().__init__()
        self.steps, self.perceptron = steps, perceptron  # [(node, indices of the values it reads)]
        self.is_curved = any(node.curved for node, _ in steps)
        self.draws, self.drawn_for, self.given = any(node.draws for node, _ in steps), None, []
        self.keeps = sorted({place for node, _ in steps for place in node.keeps})
        # Values that no parameter is behind: of their δ only the interpolated rows are wanted.
        self.bare = [True]
        for node, reads in steps:
            self.bare.append(node.bare and all(self.bare[i] for i in reads))
        self._tell()

    def __str__(self):
        rows = [("value", "operation", "of", "reads", "sweeps")]
        for i, (node, reads) in enumerate(self.steps, 1):
            sweeps = "forward · pullback · pushforward" + (" · curvature" if self.is_curved else "")
            if any(True for _ in node.parameters()):
                sweeps += " · weight gradient"
            rows.append((str(i), node.what, node.name, ", ".join(map(str, reads)), sweeps))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _tell(self):
        """Tells nodes who alone reads them, which values, tangents and δ they alone have, whether something bends
        behind them, whether anyone wants their J t, and whether that is the last sweep.
        """
        readers = [0] * (len(self.steps) + 1)
        for _, reads in self.steps:
            for i in reads:
                readers[i] += 1
        for node, reads in self.steps:
            for i in reads:
                if i:
                    self.steps[i - 1][0].reader = node if readers[i] == 1 else None
        alone = [False]  # a value and its tangent
        for node, reads in self.steps:
            node.over_x = alone[reads[0]]
            alone.append(readers[len(alone)] == 1 and (alone[reads[0]] if node.gives is None else node.gives))
        alone, bent, pushed = ([False] * len(readers) for _ in range(3))  # its δ; what reads it bends; its t is wanted
        for i, (node, reads) in reversed(list(enumerate(self.steps, 1))):
            node.over_delta, node.bent_behind, node.pushes = alone[i], bent[i], pushed[i]
            node.is_done = not self.is_curved
            for source in reads:
                pushed[source] |= pushed[i] or node.takes_tangent
                bent[source] |= bent[i] or node.bends
                alone[source] = readers[source] == 1 and (alone[i] if node.pulls is None else node.pulls)

    def suited(self, x, results=()):
        """The sweeps for samples like x. results: see ``give``."""
        return self.perceptron if self.perceptron is not None and self.perceptron.takes(x, results) else self

    def is_channels_last(self):
        """Whether a kernel of the critic is in channels-last memory, and with it all that its convolution gives."""
        weights = (getattr(node.module, "weight", None) for node, _ in self.steps)
        kernels = (weight for weight in weights if isinstance(weight, torch.Tensor) and weight.dim() == 4)
        return any(_layout.memory_format(kernel) is torch.channels_last for kernel in kernels)

    def copied(self):
        return Program([(copy.copy(node), reads) for node, reads in self.steps])

    def give(self, results, times=1):
        """What an ``Outside`` has come to, for the next sweeps. times: of samples as it has seen them so many batches
        come behind each other.
        """
        self.given = [result.shape for result in results] if self.draws else []
        for node, _ in self.steps:
            node.give(results, times)

    def losses(self, x, batch, *how):
        if self.draws:
            self._draw(x, batch)
        return super().losses(x, batch, *how)

    def begin(self, x, split, seed):
        self.x_hat = x[split:]
        scores = self._forward(x, split)
        return scores, self._pullback(seed(scores), split)

    def finish(self, tangent):
        in_memory = tangent.stride() == self.x_hat.stride()
        self._pushforward(tangent if in_memory else torch.empty_like(self.x_hat).copy_(tangent))
        if self.is_curved:
            self._curvature()
        return summed(pair for node, _ in self.steps for pair in node.gradients())

    def forget(self):
        self.x_hat = None
        for node, _ in self.steps:
            node.forget()

    def _draw(self, x, batch):
        """Ahead of the sweeps, in the order of a loop that calls the critic with one batch after the other."""
        drawing = [node for node, _ in self.steps if node.draws]
        rounds = torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type)
        layers = (node.module._parameters.values() for node, _ in self.steps if node.module is not None)
        weights = [param.shape for params in layers for param in params if param is not None]
        kind = x.shape[1:], x.dtype, rounds, self.given, weights
        if kind != self.drawn_for:  # they do not know yet what they draw for
            self.drawn_for = None
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                self._forward(x.clone(), 2 * batch)
            for node in drawing:
                node.forget()
            self.drawn_for = kind
        for _ in range(len(x) // batch):
            for node in drawing:
                node.draw(batch)

    def _forward(self, x, split):
        values = [x]
        for node, reads in self.steps:
            values.append(node.forward(split, *(values[i] for i in reads)))
        return values[-1]

    def _pullback(self, seed, split):
        """The gradient at the input, of whose rows only those from ``split`` on are wanted."""
        interpolated = slice(split - len(seed), None) if split else None  # None: all
        deltas = [None] * len(self.steps) + [seed]
        for i, (node, reads) in reversed(list(enumerate(self.steps, 1))):
            pulled = node.pullback(deltas[i], interpolated if all(self.bare[j] for j in reads) else None)
            for source, delta in zip(reads, pulled, strict=True):
                if interpolated is not None and self.bare[source]:
                    delta = delta[interpolated]
                deltas[source] = delta if deltas[source] is None else deltas[source] + delta
            deltas[i] = None
        return deltas[0]

    def _pushforward(self, tangent):
        tangents = [tangent]
        for node, reads in self.steps:
            wanted = node.pushes or node.takes_tangent
            tangents.append(node.pushforward(*(tangents[i] for i in reads)) if wanted else None)

    def _curvature(self):
        bent = [None] * (len(self.steps) + 1)
        for i, (node, reads) in reversed(list(enumerate(self.steps, 1))):
            for source, r in zip(reads, node.curvature(bent[i], any(reads)), strict=True):
                if r is not None:
                    bent[source] = r if bent[source] is None else bent[source] + r
            bent[i] = None
