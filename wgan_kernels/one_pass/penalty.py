"""A gradient penalty as one node of autograd's graph: forward a program's forward and pullback, backward the
pushforward of the penalty's derivative, curvature and weight gradients.
"""

import torch
from torch import nn
from torch.nn.modules import module as _module

from .. import _layout
from ..second_order import is_recorded_plainly
from .again import Before, as_it_was, weights_as_they_were
from .closure import Closure, closure_of
from .known import kind_of, known_of
from .program import Refused


def penalty(critic, x, by_calls, **how):
    """(``gradient_norm_penalty(∇ₓ Σ critic(x), **how)``, the gradients' norms). The former is a part of the critic's
    graph wherever gradients are enabled.

    None where it has to be made of the critic's own calls: for one whose Python may do more than to put torch's layers
    together, since it would not be run, for tensors other than plain ones on a CPU, and where somebody follows the
    calls.
    ``by_calls(x)`` makes it so, differentiably; derivatives beyond the second take that.

    Images are taken in channels-last memory, where convolutions are faster: 1.04 to 1.5 times so from one image of
    64×64 (DCGAN) or four of 28×28 (S0, S3) on, the copies of weights and of their gradients included; a layer whose
    kernel outweighs its images takes them out of it.
    """
    if not _is_plain(x) or x.dim() < 2 or not len(x) or _module._has_any_global_hook() or not is_recorded_plainly():
        return None
    critic = critic if isinstance(critic, nn.Module) else closure_of(critic)
    known = known_of(critic, x)
    if known is None:
        return None
    params = known.parameters(critic)
    # Others are put there by torch.func.functional_call, for as long as it lasts.
    if not all(type(param) is nn.Parameter and _is_plain(param) for param in params):
        return None
    if not any(param.requires_grad for param in params):
        return None
    way = known.way(critic, x)
    if way is None:
        known.refuse(critic, x, way)
        return None
    before = None if kind_of(x) in way.gone else Before(known, way)
    try:
        if torch.is_grad_enabled():
            made = Penalty.apply(critic, by_calls, known, way, how, x, *params)
        else:
            program, value, _, norms = _begun(way, x, how, way.results(x, _tensors(critic)))
            made = value, norms
            program.release()
    except Refused:
        known.refuse(critic, x, way)
        if before is not None:
            before.restore()
        return None
    way.gone.add(kind_of(x))
    return made


def _is_plain(tensor):
    return type(tensor) in (torch.Tensor, nn.Parameter) and tensor.is_cpu and tensor.layout is torch.strided


class Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, critic, by_calls, known, way, how, x, *params):
        ctx.critic, ctx.by_calls, ctx.known, ctx.way, ctx.params = critic, by_calls, known, way, params
        ctx.how, ctx.results = how, way.results(x, _tensors(critic))
        ctx.rng_state = torch.get_rng_state() if way.program.draws else None
        ctx.program, value, derivative, norms = _begun(way, x, how, ctx.results)
        kept = (ctx.results[place] for place in way.program.keeps)
        ctx.save_for_backward(derivative, x, *params, *kept)  # none of which may change before the backward
        ctx.mark_non_differentiable(norms)
        return value, norms

    @staticmethod
    def backward(ctx, delta, _):
        derivative, x, *_ = ctx.saved_tensors
        if torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(delta):  # is_grads_batched
            gradients = _gradients_by_calls(ctx, x, delta)
        else:
            if ctx.program is None:  # the graph was kept, and is run once more
                with as_it_was(ctx):
                    ctx.program, *_ = _begun(ctx.way, x, ctx.how, ctx.results)
            program, ctx.program = ctx.program, None
            received = ctx.way.through(ctx.results, program.finish(delta * derivative), ctx.params)
            gradients = {id(param): grad for param, grad in received}
            program.release()
        return None, None, None, None, None, None, *(gradients.get(id(param)) for param in ctx.params)


def _tensors(critic):
    """What a critic is given beside its samples."""
    return critic.tensors if isinstance(critic, Closure) else ()


def _gradients_by_calls(ctx, x, delta):
    wanted = [param for param in ctx.params if param.requires_grad]
    with as_it_was(ctx), weights_as_they_were(ctx), torch.enable_grad():
        found = torch.autograd.grad(
            ctx.by_calls(x), wanted, delta, retain_graph=True, create_graph=torch.is_grad_enabled(), allow_unused=True
        )
    return {id(param): grad for param, grad in zip(wanted, found, strict=True)}


def _begun(way, x, how, results):
    """(a program that has run its first two sweeps, the penalty, its derivative with respect to the gradient, the
    gradient's norms)
    """
    if x.dim() == 4 and way.program.perceptron is None:
        x = _layout.channels_last(x)
    program = way.program.suited(x, results).spare()
    if results:
        program.give(results)
    return program, *program.penalty(x, **how)
