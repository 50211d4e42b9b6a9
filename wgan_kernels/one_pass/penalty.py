"""A gradient penalty as one node of autograd's graph: forward a program's forward and pullback, backward the
pushforward of the penalty's derivative, curvature and weight gradients.
"""

import weakref

import torch
from torch import nn
from torch.nn.modules import module as _module

from .. import _layout
from .._settings import settings, surroundings, within
from ..second_order import is_recorded_plainly
from .closure import Closure, closure_of
from .program import Refused
from .trace import reads, reads_of_closure, trace, trace_closure
from .transparent import is_unchanged


def penalty(critic, x, by_calls, **how):
    """``gradient_norm_penalty(∇ₓ Σ critic(x), **how)``: a part of the critic's graph wherever gradients are enabled.

    None where it has to be made of the critic's own calls: for one whose Python may do more than to put torch's layers
    together, since it would not be run, for tensors other than plain ones on a CPU, and where somebody follows the
    calls.
    ``by_calls(x)`` makes it so, differentiably; derivatives beyond the second take that.

    Images are taken in channels-last memory, where convolutions are faster: 1.04 to 1.5 times so from one image of
    64×64 (DCGAN) or four of 28×28 (S0, S3) on, the copies of weights and of their gradients included.
    """
    if not _is_plain(x) or x.dim() < 2 or not len(x) or _module._has_any_global_hook() or not is_recorded_plainly():
        return None
    critic = critic if isinstance(critic, nn.Module) else closure_of(critic)
    known = _known_of(critic)
    if known is None:
        return None
    params = known.parameters()
    # Others are put there by torch.func.functional_call, for as long as it lasts.
    if not all(type(param) is nn.Parameter and _is_plain(param) for param in params):
        return None
    if not any(param.requires_grad for param in params) or x.shape in known.refused:
        return None
    if x.dim() == 4 and known.program.perceptron is None:
        x = _layout.channels_last(x)
    try:
        if torch.is_grad_enabled():
            return Penalty.apply(critic, by_calls, known, how, x, *params)
        program, value, _ = _begun(known, x, how, _results(known, critic, x))
        program.release()
        return value
    except Refused as reason:
        known.refused[x.shape] = reason
        return None


def _is_plain(tensor):
    return type(tensor) in (torch.Tensor, nn.Parameter) and tensor.is_cpu and tensor.layout is torch.strided


class Known:
    """What a critic was found to be, as it was then and with what surrounded it.

    program: None where there is none. reads: see ``trace.reads``. refused: {shape of x: why it cannot be run}
    outside: what is run before, an ``Outside`` or None.
    """

    outside = None

    def __init__(self, critic, made_for):
        self.parts, self.made_for, self.refused = list(critic.modules())[1:], made_for, {}
        self.surroundings, self.settings = made_for
        self.reads = reads(critic)
        self.program = None if self.reads is None else _traced(trace, critic)

    def is_of(self, now):
        return self.made_for == now and is_unchanged(self.reads)

    def parameters(self):
        """Of the critic's parts, as they have them now, each once. Those of its own no layer reads."""
        of_parts = (param for part in self.parts for param in part._parameters.values() if param is not None)
        return list({id(param): param for param in of_parts}.values())  # a parameter's hash is a function in Python


class KnownClosure(Known):
    """The same of a ``Closure``."""

    def __init__(self, closure, made_for):
        # Without the module that it is known by, see _known_of_closure
        self.parts = [part for module in closure.modules for part in module.modules() if part is not closure.main]
        self.made_for, self.refused = made_for, {}
        self.surroundings, self.settings = made_for
        self.reads, self.program = reads_of_closure(closure), None
        if self.reads is not None:
            self.program, self.outside = _traced(trace_closure, closure) or (None, None)


_known = weakref.WeakKeyDictionary()  # {critic: Known}
_closures = weakref.WeakKeyDictionary()  # {a closure's main module: {its code: Known}}
_MOST = 16  # closures of one critic that are remembered


def _known_of(critic):
    """None for one that is not run as a program."""
    if isinstance(critic, Closure):
        return _known_of_closure(critic)
    if not isinstance(critic, nn.Module):
        return None
    known = _known.get(critic)
    if known is not None and known.reads is None:  # it stays with its calls, and pays for no look at its settings
        return None
    now = surroundings("cpu"), settings(critic)
    if known is None or not known.is_of(now):
        _known[critic] = known = Known(critic, now)
    return None if known.program is None else known


def _known_of_closure(closure):
    if closure.main is None:
        return None
    of_main = _closures.setdefault(closure.main, {})
    known = of_main.get(closure.code)
    if known is not None and known.reads is None:
        return None
    now = surroundings("cpu"), closure.settings()
    if known is None or not known.is_of(now):
        if len(of_main) >= _MOST:
            of_main.clear()
        of_main[closure.code] = known = KnownClosure(closure, now)
    return None if known.program is None else known


def _traced(how, critic):
    try:
        return how(critic)
    except Refused:
        return None


class Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, critic, by_calls, known, how, x, *params):
        ctx.critic, ctx.by_calls, ctx.known, ctx.params = critic, by_calls, known, params
        ctx.how, ctx.results = how, _results(known, critic, x)
        ctx.program, value, derivative = _begun(known, x, how, ctx.results)
        ctx.save_for_backward(derivative, x, *params)  # none of which may change before the backward
        return value

    @staticmethod
    def backward(ctx, delta):
        derivative, x, *_ = ctx.saved_tensors
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(delta):  # is_grads_batched
            gradients = _gradients_by_calls(ctx, x, delta)
        else:
            if ctx.program is None:  # the graph was kept, and is run once more
                with _as_it_was(ctx):
                    ctx.program, *_ = _begun(ctx.known, x, ctx.how, ctx.results)
            program, ctx.program = ctx.program, None
            gradients = _through(ctx, program.finish(delta * derivative))
            program.release()
        return None, None, None, None, None, *(gradients.get(id(param)) for param in ctx.params)


@torch.enable_grad()
def _results(known, critic, x):
    """What the ``Outside`` of a closure comes to, with its graph."""
    return [] if known.outside is None else known.outside.run(x, critic.tensors)


def _through(ctx, received):
    """{a parameter's identity: what it receives}, through the outside where that has received it."""
    gradients = {id(tensor): grad for tensor, grad in received}
    of_results = [(result, gradients.pop(id(result))) for result in ctx.results if id(result) in gradients]
    if of_results:
        results, grads = zip(*of_results, strict=True)
        wanted = [param for param in ctx.params if param.requires_grad]
        found = torch.autograd.grad(results, wanted, grads, retain_graph=True, allow_unused=True)
        for param, grad in zip(wanted, found, strict=True):
            if grad is not None:
                gradients[id(param)] = gradients[id(param)] + grad if id(param) in gradients else grad
    return gradients


def _gradients_by_calls(ctx, x, delta):
    if isinstance(ctx.critic, Closure) and not ctx.critic.is_unchanged():
        raise RuntimeError(
            "critic: what its function reads from outside, as labels, has changed since the penalty was made, and a "
            "derivative of a higher order calls it again: leave it as it was until then"
        )
    wanted, create_graph = [param for param in ctx.params if param.requires_grad], torch.is_grad_enabled()
    with _as_it_was(ctx), torch.enable_grad():
        found = torch.autograd.grad(ctx.by_calls(x), wanted, delta, create_graph=create_graph, allow_unused=True)
    return {id(param): grad for param, grad in zip(wanted, found, strict=True)}


def _as_it_was(ctx):
    """For running the critic again: what surrounded it before is put back; what else has changed cannot be."""
    now, known, critic = ctx.known.parameters(), ctx.known, ctx.critic
    is_closure = isinstance(critic, Closure)
    if (critic.settings() if is_closure else settings(critic)) != known.settings or list(map(id, now)) != list(
        map(id, ctx.params)
    ):
        raise RuntimeError(
            "critic: has changed since the penalty was made (its mode, its layers or which parameters it has), and a "
            "second backward, or a derivative of a higher order, runs it again: leave it as it was until then"
        )
    return within("cpu", known.surroundings)


def _begun(known, x, how, results):
    """(a program that has run its first two sweeps, the penalty, its derivative with respect to the gradient)"""
    program = known.program.suited(x).spare()
    if results:
        program.give(results)
    return program, *program.penalty(x, **how)
