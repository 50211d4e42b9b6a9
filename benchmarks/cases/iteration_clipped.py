"""A whole training iteration of the original WGAN, as the seeds write it: RMSprop and clipped weights, no penalty.

``iteration/s0-clip`` is the loop of the Keras notebook: its critic has two updates for each batch, −mean f on 32 real
samples and mean f on 32 generated ones, and only the kernels of its convolutions are clipped. ``iteration/s3-clip`` is
that of the TensorFlow post: one update of the sum on 64 of each, every weight clipped. Both critics have the BatchNorm
that the documents give them. The rate is that of ``iteration.py``, and so small for the same reason; the weights begin
outside of the bound, and the outcome has them after the clip.
"""

from functools import partial

import torch
from torch import nn

import wgan_kernels as wk

from ..case import OURS, Case
from ..networks import blank, digits_generator, operations, s0_batch_norm_critic, s3_batch_norm_critic, size
from ..peers.compile import generator_gradients, mean_gradients, network
from ..peers.question import task, weights
from ._optimizer import BOUND, clamp, foreach_clamp
from .gradient_penalty import KINKS
from .iteration import ALPHA, EPS, LR, N_CRITIC

RMSPROP = {"lr": LR, "alpha": ALPHA, "eps": EPS}
# For each update of the critic, the factors of mean f(real) and mean f(fake) in its loss.
IN_TURN, JOINTLY = ((-1, 0), (0, 1)), ((-1, 1),)


def kernels(critic):
    """What S0 clips."""
    return [layer.weight for layer in critic if isinstance(layer, nn.Conv2d)]


def everything(critic):
    return list(critic.parameters())


def loss_of(critic, real, fake, factors):
    return sum(factor * critic(samples).mean() for factor, samples in zip(factors, (real, fake), strict=True) if factor)


class Updates:
    """A critic's updates on one batch, as a user writes them; ``gradients``: what each of the last ones left."""

    def __init__(self, critic, optimizer, losses, clip=lambda: None):
        self.critic, self.optimizer, self.losses, self.clip = critic, optimizer, losses, clip

    def __call__(self, real, fake):
        self.gradients = []
        for factors in self.losses:
            self.optimizer.zero_grad()
            self.differentiate(real, fake, factors)
            self.optimizer.step()
            self.clip()
            self.gradients.append([param.grad for param in self.critic.parameters()])

    def differentiate(self, real, fake, factors):
        loss_of(self.critic, real, fake, factors).backward()


class CompiledUpdates(Updates):
    """Each loss and its backward as one graph. ``of_critic(critic, real, fake, factors)``."""

    def __init__(self, of_critic, *more):
        super().__init__(*more)
        self.of_critic = of_critic

    def differentiate(self, real, fake, factors):
        gradients = self.of_critic(self.critic, real, fake, factors)
        for param, grad in zip(self.critic.parameters(), gradients, strict=True):
            param.grad = grad


class Unit:
    """One update by ``wk.CriticStep``."""

    def __init__(self, critic, optimizer):
        self.critic, self.step = critic, wk.CriticStep(critic, optimizer, penalty=None)

    def __call__(self, real, fake):
        self.step(real, fake)
        self.gradients = [[param.grad for param in self.critic.parameters()]]


class CompiledGenerator:
    def __init__(self, generator, critic, samples, of_generator):
        self.generator, self.critic, self.samples, self.of_generator = generator, critic, samples, of_generator
        self.optimizer = torch.optim.RMSprop(generator.parameters(), **RMSPROP, foreach=True)

    @torch.no_grad()
    def sample(self, z):
        return self.samples(self.generator, z)

    def __call__(self, z):
        gradients = self.of_generator(self.generator, self.critic, z)
        for param, grad in zip(self.generator.parameters(), gradients, strict=True):
            param.grad = grad
        self.optimizer.step()


def by_ours(losses, clipped, critic, generator):
    own = clipped(critic)
    others = [param for param in critic.parameters() if all(param is not each for each in own)]
    optimizer = wk.optim.RMSprop([{"params": own, "clip": BOUND}, {"params": others}], **RMSPROP)
    updates = Unit(critic, optimizer) if losses is JOINTLY else Updates(critic, optimizer, losses)
    return updates, wk.GeneratorStep(generator, critic, wk.optim.RMSprop(generator.parameters(), **RMSPROP))


def plainly(losses, clipped, critic, generator, clip=clamp, **options):
    rmsprop = partial(torch.optim.RMSprop, **RMSPROP, **options)
    updates = Updates(critic, rmsprop(critic.parameters()), losses, partial(clip, clipped(critic)))
    return updates, wk.reference.GeneratorStep(generator, critic, rmsprop(generator.parameters()))


def compiled(of_critic, of_generator, losses, clipped, critic, generator):
    optimizer = torch.optim.RMSprop(critic.parameters(), **RMSPROP, foreach=True)
    updates = CompiledUpdates(of_critic, critic, optimizer, losses, partial(foreach_clamp, clipped(critic)))
    return updates, CompiledGenerator(generator, critic, **of_generator)


def iteration(name, make):
    """A contender: the iteration of what ``make(critic, generator)`` returned for these networks.

    Its outcome: the gradients of the critic's last updates, its weights, the gradients of the generator.
    """

    def run(networks, real, latent):
        critic, generator = networks
        loops = critic.__dict__.setdefault("loops_of_contenders", {})
        if name not in loops:
            loops[name] = make(critic, generator)
        updates, generator_step = loops[name]
        for samples, z in zip(real, latent, strict=False):
            updates(samples, generator_step.sample(z[: len(samples)]))
        generator_step(latent[-1])
        return updates.gradients, list(critic.parameters()), [param.grad for param in generator.parameters()]

    return run


def reference(losses, clipped, networks, real, latent):
    critic, generator = networks
    wk.reference.clip_(clipped(critic), BOUND)
    fake = generator(latent[N_CRITIC - 1][: len(real[-1])]).detach()
    params = list(critic.parameters())
    of_critic = [torch.autograd.grad(loss_of(critic, real[-1], fake, factors), params) for factors in losses]
    loss = wk.reference.generator_loss(critic(generator(latent[-1])))
    return of_critic, params, torch.autograd.grad(loss, list(generator.parameters()))


def told(losses, clipped, networks, real, latent):
    critic, generator = networks
    described = {"critic": (critic, real.shape[2:]), "generator": (generator, latent.shape[2:])}
    bounded = [any(param is own for own in clipped(critic)) for param in critic.parameters()]
    asked = task(
        "clipped_iteration",
        described,
        optimizer=["rmsprop", RMSPROP],
        losses=losses,
        bounds=[BOUND if each else None for each in bounded],
        outcome=[*(f"critic {index}" for index in range(len(losses))), "critic weights", "generator"],
    )
    return asked, weights(described) | {"real": real, "latent": latent}


def case(name, critic, latent, losses, clipped, samples, batch=64):
    """``samples``: how many real and how many generated ones each batch of the critic has."""

    def make(device, dtype):
        networks = nn.ModuleList([critic(), digits_generator(latent)]).to(device, dtype)
        real = torch.randn(N_CRITIC, samples, 1, 28, 28, device=device, dtype=dtype).tanh()
        return networks, real, torch.randn(N_CRITIC + 1, batch, latent, device=device, dtype=dtype)

    of_loop, generates = (losses, clipped), partial(digits_generator, latent)
    of_generator = {"samples": network(generates), "of_generator": generator_gradients(generates, critic)}
    judge, generator = blank(critic), blank(generates)
    return Case(
        name=f"iteration/{name}",
        what=f"{N_CRITIC} batches for a critic with clipped weights, {samples} real and as many generated, in "
        f"{len(losses) * N_CRITIC} updates, and one update of the generator, batch {batch}",
        make=make,
        contenders={
            OURS: iteration(OURS, partial(by_ours, *of_loop)),
            "eager": iteration("eager", partial(plainly, *of_loop)),
            "foreach": iteration("foreach", partial(plainly, *of_loop, clip=foreach_clamp, foreach=True)),
            "compile": iteration("compile", partial(compiled, mean_gradients(critic), of_generator, *of_loop)),
        },
        reference=partial(reference, *of_loop),
        tolerance=10 * KINKS,
        # Samples; weight, average and gradient of each update.
        traffic=N_CRITIC * (2 * samples * 784 + 6 * len(losses) * size(judge)) + 6 * size(generator),
        operations=N_CRITIC * operations(judge, 1, 28, 28, backward=2 * samples)
        + N_CRITIC * operations(generator, latent, forward=samples)
        + operations(generator, latent, backward=batch)
        + operations(judge, 1, 28, 28, forward=2 * batch),
        told=partial(told, *of_loop),
        large=True,
    )


CASES = (
    case("s0-clip", s0_batch_norm_critic, 50, IN_TURN, kernels, samples=32),
    case("s3-clip", s3_batch_norm_critic, 128, JOINTLY, everything, samples=64),
)
