"""A whole training iteration of WGAN-GP: five updates of the critic, each on new samples, then one of the generator.

The networks are those of the seeds, the optimizer is the post's RMSprop. Its rate is so small that the weights stay
where they are: every call then asks the same, and the gradients that it leaves can be compared with the reference's.
RMSprop's first steps would make rounding errors of small gradients as large as the gradients.
"""

from functools import partial

import torch

import wgan_kernels as wk

from ..case import OURS, Case
from ..networks import blank, digits_generator, operations, s0_critic, s3_critic, s3_layer_norm_critic, size
from ..peers.compile import critic_gradients, generator_gradients, network
from ..peers.question import task, weights
from .critic_step import WEIGHT, drawn_for
from .critic_step import reference as critic_gradients_of
from .gradient_penalty import COMPILED, KINKS

N_CRITIC, LR, ALPHA, EPS = 5, 1e-12, 0.99, 1e-8


class ByUnits:
    """As the README has it."""

    def __init__(self, critic, generator, of=wk):
        rmsprop = partial(of.optim.RMSprop, lr=LR, alpha=ALPHA, eps=EPS)
        self.critic_step = of.CriticStep(critic, rmsprop(critic.parameters()), weight=WEIGHT)
        self.generator_step = of.GeneratorStep(generator, critic, rmsprop(generator.parameters()))

    def __call__(self, real, latent):
        for samples, z in zip(real, latent, strict=False):
            self.critic_step(samples, self.generator_step.sample(z))
        self.generator_step(latent[-1])


class Plain:
    """The loop that a user writes, over ours or the formulas, with the optimizer of either."""

    def __init__(self, critic, generator, of, optimizer):
        self.critic, self.generator, self.of = critic, generator, of
        self.critic_optimizer, self.generator_optimizer = (
            optimizer(network.parameters(), lr=LR, alpha=ALPHA, eps=EPS) for network in (critic, generator)
        )

    def __call__(self, real, latent):
        for samples, z in zip(real, latent, strict=False):
            self.update_critic(samples, self.sample(z))
        self.update_generator(latent[-1])

    @torch.no_grad()
    def sample(self, z):
        return self.generator(z)

    def update_critic(self, real, fake):
        penalty = self.of.gradient_penalty(self.critic, real, fake)
        loss = self.of.critic_loss(self.critic(real), self.critic(fake), penalty, weight=WEIGHT)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()

    def update_generator(self, z):
        loss = self.of.generator_loss(self.critic(self.generator(z)))
        self.generator_optimizer.zero_grad()
        loss.backward(inputs=list(self.generator.parameters()))
        self.generator_optimizer.step()


class Compiled(Plain):
    """Both updates' gradients as one graph each, the generator compiled to sample, PyTorch's foreach RMSprop."""

    def __init__(self, critic, generator, samples, of_critic, of_generator):
        super().__init__(critic, generator, wk.reference, partial(torch.optim.RMSprop, foreach=True))
        self.samples, self.of_critic, self.of_generator = samples, of_critic, of_generator

    @torch.no_grad()
    def sample(self, z):
        return self.samples(self.generator, z)

    def update_critic(self, real, fake):
        gradients = self.of_critic(self.critic, real, fake, drawn_for(real))
        self.step(self.critic, gradients, self.critic_optimizer)

    def update_generator(self, z):
        gradients = self.of_generator(self.generator, self.critic, z)
        self.step(self.generator, gradients, self.generator_optimizer)

    def step(self, network, gradients, optimizer):
        for param, grad in zip(network.parameters(), gradients, strict=True):
            param.grad = grad
        optimizer.step()


def iteration(name, make):
    """A contender: an iteration by what ``make(critic, generator)`` returned for these networks, with ε drawn alike.

    Its outcome: what the critic's last update and the generator's left as gradients.
    """

    def run(networks, real, latent):
        critic, generator = networks
        loops = critic.__dict__.setdefault("loops_of_contenders", {})
        if name not in loops:
            loops[name] = make(critic, generator)
        torch.manual_seed(0)
        loops[name](real, latent)
        return tuple(param.grad for param in networks.parameters())

    return run


def drawn(networks, real, latent):
    """ε of each update, as every contender draws it."""
    torch.manual_seed(0)
    return (torch.stack([drawn_for(samples) for samples in real]),)


def reference(networks, real, latent, eps):
    """The gradients of the last update of the critic, and of the generator's: the weights stay where they are."""
    critic, generator = networks
    fake = generator(latent[N_CRITIC - 1]).detach()
    critics = critic_gradients_of(critic, real[-1], fake, eps[-1])
    loss = wk.reference.generator_loss(critic(generator(latent[-1])))
    return *critics, *torch.autograd.grad(loss, list(generator.parameters()))


def told(networks, real, latent):
    critic, generator = networks
    (eps,) = drawn(networks, real, latent)
    described = {"critic": (critic, real.shape[2:]), "generator": (generator, latent.shape[2:])}
    optimizer = ["rmsprop", {"lr": LR, "alpha": ALPHA, "eps": EPS}]
    arrays = weights(described) | {"real": real, "latent": latent, "eps": eps}
    return task("iteration", described, weight=WEIGHT, optimizer=optimizer), arrays


def case(name, critic, latent, batch=64, large=False):
    def make(device, dtype):
        networks = torch.nn.ModuleList([critic(), digits_generator(latent)]).to(device, dtype)
        real = torch.randn(N_CRITIC, batch, 1, 28, 28, device=device, dtype=dtype).tanh()
        return networks, real, torch.randn(N_CRITIC + 1, batch, latent, device=device, dtype=dtype)

    judge, generator = blank(critic), blank(partial(digits_generator, latent))
    contenders = {
        OURS: iteration(OURS, ByUnits),
        "drop-in": iteration("drop-in", partial(Plain, of=wk, optimizer=wk.optim.RMSprop)),
        "eager": iteration("eager", partial(Plain, of=wk.reference, optimizer=torch.optim.RMSprop)),
    }
    if name in COMPILED:
        graphs = {
            "samples": network(partial(digits_generator, latent)),
            "of_critic": critic_gradients(critic, WEIGHT),
            "of_generator": generator_gradients(partial(digits_generator, latent), critic),
        }
        contenders["compile"] = iteration("compile", partial(Compiled, **graphs))
    # The generator's own update: both networks forward, both backward, the weights of the generator alone. Of the
    # critic's backward, the input gradient is as much as a forward pass.
    return Case(
        name=f"iteration/{name}",
        what=f"{N_CRITIC} updates of the critic and one of the generator, batch {batch}",
        make=make,
        contenders=contenders,
        reference=reference,
        added=drawn,
        tolerance=10 * KINKS,  # of 64 images, and a flip in the critic changes all of one image's gradient
        traffic=N_CRITIC * (batch * 2 * 784 + 6 * size(judge)) + 6 * size(generator),
        operations=N_CRITIC * operations(judge, 1, 28, 28, backward=2 * batch, penalty=batch)
        + N_CRITIC * operations(generator, latent, forward=batch)
        + operations(generator, latent, backward=batch)
        + operations(judge, 1, 28, 28, forward=2 * batch),
        told=told,
        large=large,
    )


CASES = (
    case("s3", s3_critic, 128),
    case("s3-layer-norm", s3_layer_norm_critic, 128, large=True),
    case("s0", s0_critic, 50, large=True),
)
