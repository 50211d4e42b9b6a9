"""x̂ = ε·real + (1 − ε)·fake with one ε per sample."""

import torch

from .. import _checks, _dispatch, _layout, _library, reference


def _fwd_rule(leaves):
    def setup_context(ctx, inputs, output):
        real, fake, eps = inputs
        ctx.save_for_backward(eps, *((real, fake) if eps.requires_grad else ()))

    def backward(ctx, grad):
        eps, *ends = ctx.saved_tensors
        grad, *ends = _layout.alike(grad, *ends)
        real_grad, fake_grad = leaves.interpolate_bwd(grad, eps)
        return real_grad, fake_grad, _per_sample_dot(grad, ends[0] - ends[1], eps) if ends else None

    return setup_context, backward


def _bwd_rule(leaves):
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, real_tangent, fake_tangent):
        grad, eps = ctx.saved_tensors
        real_tangent, fake_tangent = _layout.alike(real_tangent, fake_tangent)
        eps_grad = _per_sample_dot(grad, real_tangent - fake_tangent, eps) if ctx.needs_input_grad[1] else None
        return leaves.interpolate_fwd(real_tangent, fake_tangent, eps), eps_grad

    return setup_context, backward


def _random_rule(leaves):
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output[1])

    def backward(ctx, grad, _):
        (eps,) = ctx.saved_tensors
        return *leaves.interpolate_bwd(*_layout.alike(grad), eps), None, None

    return setup_context, backward


def _per_sample_dot(a, b, eps):
    return (a * b).flatten(1).sum(1, dtype=eps.dtype) if a.dim() > 1 else (a * b).to(eps.dtype)


_library.define(
    "interpolate_fwd(Tensor real, Tensor fake, Tensor eps) -> Tensor",
    fake=lambda real, fake, eps: torch.empty_like(real),
    stem="interpolate",
    rule=_fwd_rule,
)
_library.define(
    "interpolate_bwd(Tensor grad, Tensor eps) -> (Tensor, Tensor)",
    fake=lambda grad, eps: (torch.empty_like(grad), torch.empty_like(grad)),
    stem="interpolate",
    rule=_bwd_rule,
)
_library.define(
    "interpolate_random(Tensor real, Tensor fake, int seed, int offset) -> (Tensor, Tensor)",
    fake=lambda real, fake, seed, offset: (
        torch.empty_like(real),
        real.new_empty(real.shape[0], dtype=_layout.compute_dtype(real.dtype)),
    ),
    stem="interpolate",
    rule=_random_rule,
)


def interpolate(real, fake, eps=None, *, generator=None):
    """Random points on the lines between real and fake samples.

    ::

        x̂_i = ε_i·real_i + (1 − ε_i)·fake_i,    ε_i ~ U[0, 1)

    One pass over memory. Differentiable to any order in real, fake and eps; the result is a new tensor, in the memory
    format of ``real``.

    Args:
        real, fake: [B, …], the same shape and device. Where their dtypes differ (a fake from autocast), the result has
            the wider one. Arithmetic is in float32 for the half types.
        eps: [B] or [B, 1, …]. None draws one per sample with ``torch.rand``'s stream, in float32 (float64 for float64
            samples), whatever the backend; on CUDA it is drawn within the kernel, outside graph capture.
        generator: where ε is drawn from; None is the device's default generator. Only with eps=None.

    Returns:
        x̂: [B, …].

    Raises:
        TypeError: an argument is not a floating-point tensor; generator is not one.
        ValueError: shapes differ, eps is not one value per sample, or eps and generator are both given.
        RuntimeError: devices differ, or the backend asked for cannot run.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", algorithm 1, lines 5 and 6.
    """
    _check(real, fake, eps, generator)
    backend, _ = _dispatch.choose("interpolate", real.device)
    if backend == "reference":
        return reference.interpolate(real, fake, eps, generator=generator)
    leaves = _library.leaves(backend)
    real, fake = _layout.alike(*_layout.promoted(real, fake))
    batch, compute = real.shape[0], _layout.compute_dtype(real.dtype)
    if eps is None:
        if real.is_cuda and _may_draw_in_kernel(batch, real.dtype):
            return leaves.interpolate_random(real, fake, *_advance(generator, real.device))[0]
        eps = torch.rand(batch, dtype=compute, device=real.device, generator=generator)
    else:
        eps = eps.reshape(batch)  # of nothing but this most have need
        if eps.dtype is not compute or not eps.is_contiguous():
            eps = eps.to(compute).contiguous()
    return leaves.interpolate_fwd(real, fake, eps)


def _may_draw_in_kernel(batch, dtype):
    """Where the kernel draws what ``torch.rand`` would, and a seed that is an argument does no harm.

    torch draws float64 from two words and moves its generator by more than one step for very large batches; a seed that
    was captured or traced would repeat for ever.
    """
    if not 0 < batch <= 1 << 16 or dtype is torch.float64:
        return False
    return not (torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing())


def _advance(generator, device):
    """(seed, offset) of a CUDA generator, which then moves on as for one small ``torch.rand``."""
    if generator is None:
        generator = torch.cuda.default_generators[device.index]
    seed, offset = generator.initial_seed(), generator.get_offset()
    generator.set_offset(offset + 4)
    return seed - (seed >> 63 << 64), offset  # the same 64 bits, as an operator's signed int


def _check(real, fake, eps, generator):
    _checks.floating("real", real)
    _checks.floating("fake", fake)
    _checks.batched("real", real)
    _checks.same_shape("real", real, "fake", fake)
    _checks.same_device("fake", fake, "real", real)
    _checks.generator(generator, real.device)
    if eps is not None:
        _checks.floating("eps", eps)
        _checks.per_sample("eps", eps, real.shape[0])
        _checks.same_device("eps", eps, "real", real)
        if generator is not None:
            raise ValueError("generator: expected None where eps is given, since nothing is drawn")
