"""mean(fake) − mean(real) + weight·penalty, and −mean(fake)."""

from .. import _checks, _dispatch, _layout, _library, reference


def _fwd_rule(leaves):
    def setup_context(ctx, inputs, output):
        *terms, ctx.weight = inputs
        ctx.shapes = [None if term is None else term.shape for term in terms]

    def backward(ctx, grad):
        real, fake, _ = (0 if shape is None else shape.numel() for shape in ctx.shapes)
        grads = leaves.wasserstein_bwd(grad, real, fake, ctx.weight)
        return *(None if s is None else g.view(s) for g, s in zip(grads, ctx.shapes, strict=True)), None

    return setup_context, backward


def _bwd_rule(leaves):
    """The backward is linear in grad, and the forward is its adjoint."""

    def setup_context(ctx, inputs, output):
        _, ctx.real_count, ctx.fake_count, ctx.weight = inputs

    def backward(ctx, real, fake, penalty):
        real = real.contiguous() if ctx.real_count else None
        fake = fake.contiguous() if ctx.fake_count else None
        return leaves.wasserstein_fwd(real, fake, penalty, ctx.weight), None, None, None

    return setup_context, backward


def _bwd_fake(grad, real_count, fake_count, weight):
    return grad.new_empty(real_count), grad.new_empty(fake_count), grad.new_empty(())


_library.define(
    "wasserstein_fwd(Tensor? real, Tensor? fake, Tensor? penalty, float weight) -> Tensor",
    fake=lambda real, fake, penalty, weight: (fake if real is None else real).new_empty(()),
    stem="wasserstein",
    rule=_fwd_rule,
)
_library.define(
    "wasserstein_bwd(Tensor grad, int real_count, int fake_count, float weight) -> (Tensor, Tensor, Tensor)",
    fake=_bwd_fake,
    stem="wasserstein",
    rule=_bwd_rule,
)


def critic_loss(real_scores, fake_scores, penalty=None, *, weight=10.0):
    """The loss a critic minimises; without the penalty, minus the estimate of the Wasserstein distance.

    ::

        L = mean(fake_scores) − mean(real_scores) [+ weight·penalty]

    One launch forward and one backward. Differentiable to any order. The result is a new tensor.

    Args:
        real_scores, fake_scores: the critic's scores of real and of generated samples; any shapes, any counts.
        penalty: one element, for instance of ``gradient_penalty``.
        weight: λ, its factor.

    Returns:
        L: [], in the widest dtype of the arguments; sums are in float64.

    Raises:
        TypeError: an argument is not a floating-point tensor; weight is not a number.
        ValueError: penalty has more than one element; weight is NaN.
        RuntimeError: devices differ, or the backend asked for cannot run.

    Source: Arjovsky et al. 2017, "Wasserstein GAN", equation 2; Gulrajani et al. 2017, equation 3.
    """
    _checks.floating("real_scores", real_scores)
    _checks.floating("fake_scores", fake_scores)
    _checks.same_device("fake_scores", fake_scores, "real_scores", real_scores)
    weight = _checks.number("weight", weight)
    if penalty is not None:
        _checks.floating("penalty", penalty)
        _checks.scalar("penalty", penalty)
        _checks.same_device("penalty", penalty, "real_scores", real_scores)
    backend, _ = _dispatch.choose("wasserstein", real_scores.device)
    if backend == "reference":
        penalty = None if penalty is None else penalty.reshape(())
        return reference.critic_loss(real_scores, fake_scores, penalty, weight=weight)
    real, fake, penalty = _layout.promoted(real_scores, fake_scores, penalty)
    return _library.leaves(backend).wasserstein_fwd(real.contiguous(), fake.contiguous(), penalty, weight)


def generator_loss(fake_scores):
    """The loss a generator minimises.

    ::

        L = −mean(fake_scores)

    Differentiable to any order. The result is a new tensor.

    Args:
        fake_scores: the critic's scores of generated samples, any shape, with the generator in their graph.

    Returns:
        L: [], in the dtype of the scores; the sum is in float64.

    Raises:
        TypeError: fake_scores is not a floating-point tensor.
        RuntimeError: the backend asked for cannot run.

    Source: Arjovsky et al. 2017, "Wasserstein GAN", equation 3 and algorithm 1, line 10.
    """
    _checks.floating("fake_scores", fake_scores)
    backend, _ = _dispatch.choose("wasserstein", fake_scores.device)
    if backend == "reference":
        return reference.generator_loss(fake_scores)
    # The real term carries the minus sign.
    return _library.leaves(backend).wasserstein_fwd(fake_scores.contiguous(), None, None, 0.0)
