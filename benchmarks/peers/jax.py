"""The WGAN-GP of the seeds in JAX with optax: pure functions, each update one jitted function, channels last."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from .worker import Worker, serve

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def padding(layer):
    return "SAME" if layer["padding"] else "VALID"


def apply(layers, parameters, x):
    """The described network at x [B, …], and BatchNorm's statistics of this batch, for the running ones."""
    parameters, statistics = iter(parameters), []
    for layer in layers:
        stride = (layer.get("stride"),) * 2
        match layer["kind"]:
            case "Linear":
                x = x @ next(parameters) + next(parameters)
            case "Conv2d":
                x = jax.lax.conv_general_dilated(
                    x, next(parameters), stride, padding(layer), dimension_numbers=DIMENSIONS
                ) + next(parameters)
            case "ConvTranspose2d":
                x = jax.lax.conv_transpose(
                    x, next(parameters), stride, padding(layer), dimension_numbers=DIMENSIONS, transpose_kernel=True
                ) + next(parameters)
            case "BatchNorm2d":
                mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                statistics.append((mean, variance))
                x = (x - mean) * jax.lax.rsqrt(variance + layer["eps"]) * next(parameters) + next(parameters)
            case "LayerNorm":
                mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
                x = (x - mean) * jax.lax.rsqrt(variance + layer["eps"]) * next(parameters) + next(parameters)
            case "LeakyReLU":
                x = jax.nn.leaky_relu(x, layer["slope"])
            case "ReLU":
                x = jax.nn.relu(x)
            case "Tanh":
                x = jnp.tanh(x)
            case "SiLU":
                x = jax.nn.silu(x)
            case "Flatten":
                x = x.reshape(len(x), -1)
            case "Unflatten":
                channels, *pixels = layer["shape"]
                x = x.reshape(len(x), *pixels, channels)
    return x, statistics


def penalty(critic, parameters, real, fake, eps):
    points = eps * real + (1 - eps) * fake
    gradients = jax.grad(lambda x: critic(parameters, x).sum())(points)
    norms = jnp.sqrt(jnp.square(gradients).sum(range(1, gradients.ndim)))
    return jnp.square(norms - 1).mean()


class Penalty:
    """Value and gradients in the critic's parameters."""

    def __init__(self, task, weights, inputs):
        critic = critic_of(task)
        self.run = jax.jit(jax.value_and_grad(partial(penalty, critic)))
        self.assign(weights, inputs)

    def assign(self, weights, inputs):
        self.parameters = jax.device_put(weights["critic"])
        self.inputs = jax.device_put((inputs["real"], inputs["fake"], inputs["eps"]))

    def step(self):
        self.found = self.run(self.parameters, *self.inputs)
        return {"values": [self.found[0]], "critic": self.found[1]}

    def wait(self):
        jax.block_until_ready(self.found)


def critic_of(task):
    return lambda parameters, x: apply(task["networks"]["critic"], parameters, x)[0]


def optimizer_of(task):
    name, options = task["optimizer"]
    if name == "adam":
        return optax.adam(options["lr"], *options["betas"], eps=options["eps"])
    return optax.rmsprop(options["lr"], options["alpha"], options["eps"])


def critic_update(task, optimizer):
    critic = critic_of(task)

    def loss(parameters, real, fake, eps):
        distance = critic(parameters, real).mean() - critic(parameters, fake).mean()
        return task["weight"] * penalty(critic, parameters, real, fake, eps) - distance

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(parameters, state, real, fake, eps):
        gradients = jax.grad(loss)(parameters, real, fake, eps)
        changes, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, changes), state, gradients

    return update


class CriticStep:
    """One update of the critic."""

    def __init__(self, task, weights, inputs):
        self.optimizer = optimizer_of(task)
        self.update = critic_update(task, self.optimizer)
        self.assign(weights, inputs)

    def assign(self, weights, inputs):
        self.parameters = jax.device_put(weights["critic"])
        self.state = self.optimizer.init(self.parameters)
        self.inputs = jax.device_put((inputs["real"], inputs["fake"], inputs["eps"]))

    def step(self):
        self.parameters, self.state, gradients = self.update(self.parameters, self.state, *self.inputs)
        return {"critic": gradients}

    def wait(self):
        jax.block_until_ready((self.parameters, self.state))


class Iteration:
    """Updates of the critic, one for each of real's first axis, each on new samples; then one of the generator."""

    def __init__(self, task, weights, inputs):
        layers, critic = task["networks"]["generator"], critic_of(task)
        self.momenta = [layer["momentum"] for layer in layers if layer["kind"] == "BatchNorm2d"]
        self.channels = [layer["input"][0] for layer in layers if layer["kind"] == "BatchNorm2d"]
        self.optimizer = optimizer = optimizer_of(task)
        self.make_update(task)

        def running(before, now):
            return [
                tuple((1 - momentum) * old + momentum * new for old, new in zip(*pair, strict=True))
                for momentum, *pair in zip(self.momenta, before, now, strict=True)
            ]

        @jax.jit
        def sample(parameters, statistics, latent):
            fake, now = apply(layers, parameters, latent)
            return fake, running(statistics, now)

        @partial(jax.jit, donate_argnums=(0, 1))
        def generator_update(parameters, state, statistics, critic_parameters, latent):
            def loss(parameters):
                fake, now = apply(layers, parameters, latent)
                return -critic(critic_parameters, fake).mean(), now

            gradients, now = jax.grad(loss, has_aux=True)(parameters)
            changes, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, changes), state, running(statistics, now), gradients

        self.sample, self.generator_update = sample, generator_update
        self.assign(weights, inputs)

    def make_update(self, task):
        self.critic_update = critic_update(task, self.optimizer)

    def assign(self, weights, inputs):
        self.critic, self.generator = jax.device_put((weights["critic"], weights["generator"]))
        self.critic_state, self.generator_state = map(self.optimizer.init, (self.critic, self.generator))
        self.statistics = [(jnp.zeros(channels), jnp.ones(channels)) for channels in self.channels]
        self.batches, self.last = jax.device_put((self.batches_of(inputs), inputs["latent"][-1]))

    def batches_of(self, inputs):
        """[(latent, real, ε)]: what the generator gets, and the critic beside its samples."""
        return list(zip(inputs["latent"], inputs["real"], inputs["eps"], strict=False))

    def update_critic(self, fake, real, eps):
        self.critic, self.critic_state, gradients = self.critic_update(self.critic, self.critic_state, real, fake, eps)
        return {"critic": gradients}

    def step(self):
        for latent, *others in self.batches:
            fake, self.statistics = self.sample(self.generator, self.statistics, latent)
            of_critic = self.update_critic(fake, *others)
        self.generator, self.generator_state, self.statistics, gradients = self.generator_update(
            self.generator, self.generator_state, self.statistics, self.critic, self.last
        )
        return of_critic | {"generator": gradients}

    def wait(self):
        jax.block_until_ready((self.critic, self.generator))


class ClippedIteration(Iteration):
    """The original WGAN's: updates of the critic without a penalty, each with its clip. Its BatchNorm keeps no running
    statistics, which nobody would read.
    """

    def make_update(self, task):
        critic, bounds = critic_of(task), task["bounds"]

        def loss(parameters, real, fake, factors):
            return sum(f * critic(parameters, x).mean() for f, x in zip(factors, (real, fake), strict=True) if f)

        @partial(jax.jit, donate_argnums=(0, 1), static_argnums=4)
        def update(parameters, state, real, fake, factors):
            gradients = jax.grad(loss)(parameters, real, fake, factors)
            changes, state = self.optimizer.update(gradients, state, parameters)
            updated = zip(bounds, optax.apply_updates(parameters, changes), strict=True)
            clipped = [each if bound is None else jnp.clip(each, -bound, bound) for bound, each in updated]
            return clipped, state, gradients

        self.critic_update, self.losses = update, [tuple(factors) for factors in task["losses"]]

    def batches_of(self, inputs):
        samples = inputs["real"].shape[1]
        return [(latent[:samples], real) for latent, real in zip(inputs["latent"], inputs["real"], strict=False)]

    def update_critic(self, fake, real):
        found = {}
        for index, factors in enumerate(self.losses):
            self.critic, self.critic_state, found[f"critic {index}"] = self.critic_update(
                self.critic, self.critic_state, real, fake, factors
            )
        return found | {"critic weights": self.critic}


TASKS = {
    "gradient_penalty": Penalty,
    "critic_step": CriticStep,
    "iteration": Iteration,
    "clipped_iteration": ClippedIteration,
}


class Framework:
    def __init__(self, threads):
        self.versions = {"jax": jax.__version__, "optax": optax.__version__}

    def build(self, task, weights, inputs):
        return TASKS[task["name"]](task, weights, inputs)


if __name__ == "__main__":
    serve(Worker(Framework))
