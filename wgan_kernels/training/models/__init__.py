"""Generators and critics by name, one small file per family. docs/presets.md says which document each comes from."""

from collections.abc import Callable, Mapping

from torch import nn

from ..errors import UsageError
from . import compact, dcgan, mlp, resnet, s0, s3, toy_mlp, wgan_gp_mnist
from ._shapes import DIGITS, IMAGES, POINTS, SQUARES, Shapes

# Name → the samples that it is for, and how it is built.
_GENERATORS = {
    "compact": (DIGITS, lambda latent, shape: compact.CompactGenerator(latent)),
    "s0": (DIGITS, lambda latent, shape: s0.generator(latent)),
    "dcgan": (SQUARES, dcgan.generator),
    "dcgan-plain": (SQUARES, dcgan.plain_generator),
    "mlp": (IMAGES, mlp.generator),
    "s3": (DIGITS, lambda latent, shape: s0.generator(latent)),  # s3.py says why
    "wgan-gp-mnist": (DIGITS, lambda latent, shape: wgan_gp_mnist.generator(latent)),
    "resnet": (SQUARES, resnet.generator),
    "toy-mlp": (POINTS, toy_mlp.generator),
}
_CRITICS = {
    "compact": (DIGITS, lambda shape: compact.CompactCritic()),
    "compact-batch-norm": (DIGITS, lambda shape: compact.CompactBatchNormCritic()),
    "s0": (DIGITS, lambda shape: s0.critic()),
    "dcgan": (SQUARES, dcgan.critic),
    "dcgan-plain": (SQUARES, dcgan.plain_critic),
    "dcgan-layer-norm": (SQUARES, dcgan.layer_norm_critic),
    "mlp": (IMAGES, mlp.critic),
    "s3-batch-norm": (DIGITS, lambda shape: s3.batch_norm_critic()),
    "s3-layer-norm": (DIGITS, lambda shape: s3.layer_norm_critic()),
    "wgan-gp-mnist": (DIGITS, lambda shape: wgan_gp_mnist.critic()),
    "resnet": (SQUARES, resnet.critic),
    "toy-mlp": (POINTS, toy_mlp.critic),
}
GENERATORS = tuple(_GENERATORS)
CRITICS = tuple(_CRITICS)


def generator(name: str, latent: int, shape: tuple[int, ...]) -> nn.Module:
    """A generator, noise [B, latent] → samples [B, *shape], images in [−1, 1]; its ``latent`` is an attribute.

    Raises UsageError where ``name`` is unknown or not for such samples.
    """
    return _builder("--generator", _GENERATORS, name, shape)(latent, tuple(shape))


def critic(name: str, shape: tuple[int, ...]) -> nn.Module:
    """A critic, samples [B, *shape] → scores [B].

    Raises UsageError where ``name`` is unknown or not for such samples.
    """
    return _builder("--critic", _CRITICS, name, shape)(tuple(shape))


def _builder(
    flag: str, known: Mapping[str, tuple[Shapes, Callable]], name: str, shape: tuple[int, ...]
) -> Callable[..., nn.Module]:
    if name not in known:
        raise UsageError(f"{flag} {name}: there is none of this name; choose one of {', '.join(known)}")
    shapes, build = known[name]
    if not shapes.have(tuple(shape)):
        others = [other for other, (suited, _) in known.items() if suited.have(tuple(shape))]
        raise UsageError(
            f"{flag} {name}: is for {shapes.words}, and these are {_shown(shape)}; choose {' or '.join(others)}"
        )
    return build


def _shown(shape: tuple[int, ...]) -> str:
    return "images of " + "×".join(map(str, shape)) if len(shape) > 1 else f"points of {shape[0]} numbers"
