"""Running a critic once more, as if it was the first time: its layers draw, follow and compute what they did then."""

import contextlib

import torch

from .._settings import within
from .batch_norm import not_following
from .closure import Closure
from .computed import held


class Before:
    """What the first run with samples of a shape may write over, for when it ends in a refusal."""

    def __init__(self, known, way):
        self.rng_state = torch.get_rng_state() if way.program.draws else None
        self.buffers = [(buffer, buffer.clone()) for buffer in known.buffers()]

    def restore(self):
        for buffer, value in self.buffers:
            buffer.data.copy_(value)  # graphs of other calls have it, and do not mind: a batch norm writes so, too
        if self.rng_state is not None:
            torch.set_rng_state(self.rng_state)


@contextlib.contextmanager
def as_it_was(ctx):
    """For a second run: what surrounded the first is put back, nothing is followed, and the same is drawn.

    Raises:
        RuntimeError: where the critic has changed since.
    """
    now, known = ctx.known.parameters(ctx.critic), ctx.known
    if known.settings_of(ctx.critic) != known.settings or list(map(id, now)) != list(map(id, ctx.params)):
        raise RuntimeError(
            "critic: has changed since the penalty was made (its mode, its layers or which parameters it has), and a "
            "second backward, or a derivative of a higher order, runs it again: leave it as it was until then"
        )
    draws = ctx.rng_state is not None
    with within("cpu", known.surroundings), not_following(known.parts), torch.random.fork_rng([], enabled=draws):
        if draws:
            torch.set_rng_state(ctx.rng_state)
        yield


def weights_as_they_were(ctx):
    """For calls of the critic: its layers have the weights that they have computed.

    Raises:
        RuntimeError: where what a function of somebody's own gives it beside its samples has changed since.
    """
    if isinstance(ctx.critic, Closure) and not ctx.critic.is_unchanged():
        raise RuntimeError(
            "critic: what its function reads from outside, as labels, has changed since the penalty was made, and a "
            "derivative of a higher order calls it again: leave it as it was until then"
        )
    return held(ctx.way.weights(ctx.results))
