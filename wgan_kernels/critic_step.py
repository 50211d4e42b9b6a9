"""One update of the critic as a unit."""

from functools import partial

import torch
from torch import nn

from . import _checks, _layout
from ._capture import Captured
from ._heap import keep_freed_memory
from ._precision import PRECISIONS, in_precision, wide
from ._settings import settings, surroundings
from ._tuning import fastest, undisturbed
from .one_pass import Refused, losses, trace_step
from .ops.interpolate import interpolate
from .ops.wasserstein import critic_loss
from .penalty import penalty_and_norms

# What of gradient_norm_penalty each is: its settings, and the factor of it.
_PENALTIES = {
    "gp": ({"target": 1.0, "one_sided": False}, 1.0),
    "one-sided": ({"target": 1.0, "one_sided": True}, 1.0),
    "r1": ({"target": 0.0, "one_sided": False}, 0.5),
}


class CriticStep:
    """One update of a critic: losses, penalty, gradients, the optimizer's step, and its clip where it has one.

    ::

        L = mean f(fake) − mean f(real) + weight·penalty
        "gp"         mean (‖∇f(x̂)‖₂ − 1)²           x̂ on the lines between real and fake
        "one-sided"  mean max(0, ‖∇f(x̂)‖₂ − 1)²
        "r1"         ½·mean ‖∇f(real)‖²
        None         no penalty: the original WGAN, whose optimizer clips

    A feed-forward critic is run as one program, with one batch of real, fake and interpolated samples: forward,
    pullback and pushforward, and one weight gradient per layer; there is no graph of a double backward. Gradients are
    those of the plain loop (float32: 1e-4), with the same masks of dropout. Any other critic, with a batch
    normalisation or a hook for instance, takes ``gradient_penalty`` and ``backward``; ``plan`` says which way is taken,
    and why. The program is made anew when the critic's layers, hooks, mode or plain attributes change; numbers within a
    list or another object are read once.
    Of a conditional critic f(x, y), with labels for instance, the same y goes with real, fake and interpolated samples.

    Args:
        critic: samples [B, …], and what conditions them → scores of any shape; usually a Module. Its modules stay the
            caller's own.
        optimizer: of the critic's parameters, of ``wk.optim`` or ``torch.optim``. Gradients are set anew in every step.
        penalty: one of the above.
        weight: λ, the penalty's factor.
        tune: on a CPU tries the program, for images in both memory formats, and autograd on the first batch of a
            shape, and keeps what was fastest; without it images are taken in the memory of the critic's kernels. On a
            GPU makes a CUDA graph of the whole step, the optimizer's included if it is of ``wk.optim`` or capturable:
            after a plain step or two with samples of a shape one is recorded, and then replayed. A critic's own Python
            then no longer runs (not run on a GPU yet).
        generator: where ε is drawn from; None: the device's default.
        precision: of the critic's products and convolutions. "tf32", for float32 on a GPU; "bfloat16", autocast; None:
            the caller's. Weights, losses and the penalty stay what they are.

    Raises:
        ValueError: penalty or precision is unknown, weight NaN; when called, shapes differ, there is no sample, or the
            critic returns no score.
        TypeError: when called, samples are not floating-point tensors, or the critic returns no tensor.
        Nothing is written when it raises.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", algorithm 1; r1: Mescheder et al. 2018,
    equation 9.
    """

    def __init__(self, critic, optimizer, penalty="gp", weight=10.0, *, tune=True, generator=None, precision=None):
        _checks.one_of("penalty", penalty, (*_PENALTIES, None))
        _checks.one_of("precision", precision, PRECISIONS)
        self.critic, self.optimizer, self.penalty = critic, optimizer, penalty
        self.weight = _checks.number("weight", weight)
        self.tune, self.generator, self.precision = tune, generator, precision
        self._way, self.tuned = None, {}
        modules = [critic] if isinstance(critic, nn.Module) else []
        self._captured = Captured(self._gradients, modules, optimizer, [] if generator is None else [generator])
        keep_freed_memory()
        self._traced_for, self._conditions = None, 0
        self._trace()

    def _trace(self):
        """The program of the critic as it is now, which changes of mode, hooks, layers and attributes make another."""
        if self.penalty is None:
            self._why = "no penalty: one backward"
            return
        modules = self._captured.modules
        kind = next((param.device.type for module in modules for param in module.parameters()), "cpu")
        now = surroundings(kind), [settings(module) for module in modules], self._conditions
        if now == self._traced_for:
            return
        self._traced_for, self._way = now, None
        try:
            self._way = trace_step(self.critic, self._conditions)
        except Refused as reason:
            self._why = str(reason)

    @property
    def plan(self):
        """Which way a step takes: the program as a table, or the reason why there is none."""
        self._trace()
        program = f"gradient_penalty and backward: {self._why}" if self._way is None else str(self._way.program)
        tuned = [f"samples {list(shape)}: fastest by {way}" for shape, way in self.tuned.items()]
        return "\n".join([program, *tuned, *self._captured.said()])

    def __call__(self, real, fake, *condition):
        """One update.

        Args:
            real, fake: [B, …] samples of one shape; gradients of neither are wanted.
            condition: tensors [B, …] that the critic is called with behind its samples, such as labels. Likewise.

        Returns:
            {"loss", "wasserstein"} and, with a penalty, {"penalty", "gradient_norm"}: 0-d tensors, not synchronised.
        """
        self._check(real, fake, condition)
        samples = [given.detach() for given in (real, fake, *condition)]
        self._conditions = len(condition)
        self._trace()
        if self.tune and real.is_cuda:
            return self._captured(*samples)
        metrics = self._gradients(*samples)
        self.optimizer.step()
        return metrics

    def _gradients(self, real, fake, *condition):
        """Sets them, and returns the metrics."""
        points = None if self.penalty is None else self._points(real, fake)
        samples = real, fake, points, condition
        with in_precision(self.precision, real.device):
            run = self._fastest(*samples)
            try:
                return run(*samples)
            except Refused as reason:
                return self._without_program(str(reason), *samples)

    def _without_program(self, why, *samples):
        """By autograd from now on, unless it has an error of its own: then these samples are wrong, not the program."""
        way, self._way, self._why = self._way, None, why
        try:
            return self._by_autograd(*samples)
        except BaseException:
            self._way = way
            raise

    def _points(self, real, fake):
        """Where the penalty looks at the gradient."""
        return real if self.penalty == "r1" else interpolate(real, fake, generator=self.generator)

    def _fastest(self, real, *others):
        """How gradients are made for samples of this shape. The first time, the ways are tried."""
        if self._way is None:
            return self._by_autograd
        if not self.tune or not real.is_cpu:
            is_last = real.dim() == 4 and self._way.program.is_channels_last()
            return self._by_program_in_channels_last if is_last else self._by_program
        ways = {"the program": self._by_program, "gradient_penalty and backward": self._by_autograd}
        if real.dim() == 4:
            ways["the program, in channels-last memory"] = self._by_program_in_channels_last
        shape = tuple(real.shape)
        if shape not in self.tuned:
            try:
                with undisturbed():  # by dropout's masks
                    self.tuned[shape] = fastest({name: partial(way, real, *others) for name, way in ways.items()})
            except Refused:
                return self._by_program  # which says so
        return ways[self.tuned[shape]]

    def _by_program(self, real, fake, points, condition, in_memory=lambda samples: samples):
        way, samples = self._way, in_memory(torch.cat([real, fake, points]))
        results = way.results(real, condition)
        program = way.program.suited(samples, results)
        if results:
            program.give(results, times=3)
        settings, factor = _PENALTIES[self.penalty]
        metrics, received = program.step(samples, self.weight, factor, **settings)
        received = way.through(results, received, self.critic.parameters())
        self.optimizer.zero_grad()
        for param, grad in received:
            param.grad = grad
        return metrics

    def _by_program_in_channels_last(self, *samples):
        return self._by_program(*samples, _layout.channels_last)

    def _by_autograd(self, real, fake, points, condition):
        critic = _conditional(self.critic, condition) if condition else self.critic
        if self._way is None or self._way.outside is not None or self._way.program.draws:
            real_scores, fake_scores = losses.there(_checks.scores(critic(real))), _checks.scores(critic(fake))
        else:  # samples are independent of each other, and of all else
            real_scores, fake_scores = losses.there(critic(torch.cat([real, fake]))).tensor_split(2)
        real_scores, fake_scores = wide(real_scores), wide(fake_scores)
        found, penalty = {}, None
        if points is not None:
            settings, factor = _PENALTIES[self.penalty]
            penalty, norms = penalty_and_norms(critic, points, **settings)
            penalty = factor * penalty
            found = {"penalty": penalty.detach(), "gradient_norm": norms().mean().to(penalty.dtype)}
        loss = critic_loss(real_scores, fake_scores, penalty, weight=self.weight)
        self.optimizer.zero_grad()
        loss.backward()
        return losses.metrics(real_scores.detach(), fake_scores.detach(), self.weight, **found)

    def _check(self, real, fake, condition):
        _checks.floating("real", real)
        _checks.floating("fake", fake)
        _checks.batched("real", real)
        _checks.same_device("fake", fake, "real", real)
        _checks.same_shape("real", real, "fake", fake)
        _checks.filled("real", real)
        _checks.condition(condition, "real", real)


def _conditional(critic, condition):
    return lambda samples: critic(samples, *condition)
