"""One update of the generator as a unit."""

import contextlib
from functools import partial

import torch
from torch import nn

from . import _chain, _checks
from ._capture import Captured
from ._heap import keep_freed_memory
from ._precision import PRECISIONS, in_precision, wide
from ._tuning import Convolutions, fastest, undisturbed
from .ops.wasserstein import generator_loss


class GeneratorStep:
    """One update of a generator against a critic.

    ::

        L = −mean f(G(z))

    On a CPU convolutions to a few channels, such as a generator's last, are run as matrix products, and ``sample``
    normalises a convolution's result where it lies: in an ``nn.Sequential``, those nested in it and their subclasses
    without a ``forward`` of their own, whatever else is in them. ``tune`` tries, on the first latents, whether the
    others in channels-last memory, or all as they are, are evidently faster, and keeps what was fastest; ``"compile"``
    tries ``torch.compile`` of the generator beside each, which takes seconds to minutes the first time. The numbers
    differ in their last digits, and dropout draws other masks in other memory. The networks' own tensors keep theirs,
    buffers such as BatchNorm's statistics see nothing of the trials, and ``tuned`` says what was taken. On a GPU
    ``tune`` makes a CUDA graph of the update, as ``CriticStep`` does (not run on a GPU yet).

    Args:
        generator: latents [B, …], and what conditions them, such as labels → samples.
        critic: samples, and the same → scores. Its parameters receive nothing, and their gradients are not computed.
        optimizer: of the generator's parameters.
        tune: True, False or "compile".
        precision: as in ``CriticStep``, of both networks.
        ema: a ``torch.optim.swa_utils.AveragedModel`` of the generator, updated after each step; None: none.

    Raises:
        ValueError: tune or precision is none of these; when called, latent is no batch, or an empty one.
        TypeError: when called, latent is not a floating-point tensor, or the critic returns no tensor.
        RuntimeError: when called, the scores do not depend on the generator.
        Nothing is written when it raises.

    Source: Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1, lines 9 to 11.
    """

    def __init__(self, generator, critic, optimizer, *, tune=True, ema=None, precision=None):
        _checks.one_of("tune", tune, (True, False, "compile"))
        _checks.one_of("precision", precision, PRECISIONS)
        self.generator, self.critic, self.optimizer = generator, critic, optimizer
        self.tune, self.ema, self.precision = tune, ema, precision
        self.tuned = {}
        networks = {"": generator}
        if tune == "compile":
            networks[", compiled"] = torch.compile(generator)
        self._ways = {name + more: (how, net) for more, net in networks.items() for name, how in _CONVOLUTIONS.items()}
        modules = [net for net in (generator, critic) if isinstance(net, nn.Module)]
        self._captured = Captured(partial(self._gradients, contextlib.nullcontext, generator), modules, optimizer)
        keep_freed_memory()

    def __call__(self, latent, *condition):
        """One update. latent: [B, …] → {"loss": []}. Nothing synchronises.

        condition: tensors [B, …] that both networks are called with behind latents and samples.
        """
        _check(latent, condition)
        frozen = [p for p in _parameters(self.critic) if p.requires_grad]
        for param in frozen:
            param.requires_grad_(False)
        try:
            if self.tune and latent.is_cuda:
                metrics = self._captured(latent, *condition)
            else:
                metrics = self._way("update", self._gradients, latent, *condition)(latent, *condition)
                self.optimizer.step()
        finally:
            for param in frozen:
                param.requires_grad_(True)
        if self.ema is not None:
            self.ema.update_parameters(self.generator)
        return metrics

    @torch.no_grad()
    def sample(self, latent, *condition):
        """Samples for the critic, without gradients, of the generator in the mode that it is in. latent: [B, …].

        condition: tensors [B, …] that it is called with behind them.
        """
        _check(latent, condition)
        return self._way("sample", self._samples, latent, *condition)(latent, *condition)

    def _gradients(self, convolutions, generator, latent, *condition):
        wanted = [param for group in self.optimizer.param_groups for param in group["params"] if param.requires_grad]
        with in_precision(self.precision, latent.device), convolutions():
            scores = _checks.scores(self.critic(generator(latent, *condition), *condition))
            loss = generator_loss(wide(scores))
        if not loss.requires_grad:
            raise RuntimeError(
                "critic: its scores do not depend on the generator (are the samples detached on the way?)"
            )
        self.optimizer.zero_grad()
        loss.backward(inputs=wanted)
        return {"loss": loss.detach()}

    def _samples(self, convolutions, generator, *inputs):
        with in_precision(self.precision, inputs[0].device), convolutions():
            samples = _chain.run(generator, *inputs)
        is_image = isinstance(samples, torch.Tensor) and samples.is_cpu
        return samples.contiguous() if is_image else samples  # for whoever calls view on them

    def _way(self, what, run, *inputs):
        """``run`` in the way that is fastest. The first time, all are tried."""
        if not inputs[0].is_cpu:
            return partial(run, contextlib.nullcontext, self.generator)
        ways = {name: partial(run, *way) for name, way in self._ways.items()}
        if not self.tune:
            return next(iter(ways.values()))
        if what not in self.tuned:
            with undisturbed(*self._captured.modules):
                self.tuned[what] = fastest({name: partial(way, *inputs) for name, way in ways.items()})
        return ways[self.tuned[what]]


# The first is what an update is without tuning, and leaves tensors in the memory that they have elsewhere. Of 64
# images, ms on two cores of an AMD EPYC: update of S3's generator 175, 115, 284, of S0's 174, 112, 283; of the compact
# one 56, 54, 54, of WGAN-GP's for MNIST 130, 128, 133.
_CONVOLUTIONS = {
    "few channels by products": partial(Convolutions, channels_last=False),
    "few channels by products, channels-last memory": partial(Convolutions, channels_last=True),
    "as they are": contextlib.nullcontext,
}


def _parameters(critic):
    return critic.parameters() if isinstance(critic, nn.Module) else ()


def _check(latent, condition):
    _checks.floating("latent", latent)
    _checks.batched("latent", latent)
    _checks.filled("latent", latent)
    _checks.condition(condition, "latent", latent)
