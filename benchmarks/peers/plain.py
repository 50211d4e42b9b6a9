"""The WGAN-GP of the seeds in plain PyTorch, as people write it, where nothing of this package is loaded: its settings
of the C library's memory, above all, which a loop in the same process gains by as well.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from . import layout
from .worker import Worker, serve


def build(layers):
    """A described network."""
    return nn.Sequential(*map(module, layers))


def module(layer):
    channels = layer["input"][0]
    match layer["kind"]:
        case "Linear":
            return nn.Linear(channels, layer["width"])
        case "Conv2d" | "ConvTranspose2d" as kind:
            made = getattr(nn, kind)
            return made(channels, layer["channels"], layer["kernel"], layer["stride"], layer["padding"])
        case "BatchNorm2d":
            return nn.BatchNorm2d(channels, layer["eps"], layer["momentum"])
        case "LayerNorm":
            return nn.LayerNorm(layer["input"], layer["eps"])
        case "LeakyReLU":
            return nn.LeakyReLU(layer["slope"])
        case "Unflatten":
            return nn.Unflatten(1, layer["shape"])
        case kind:
            return getattr(nn, kind)()


def penalty(critic, real, fake, eps):
    points = (eps * real + (1 - eps) * fake).requires_grad_()
    (gradients,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    norms = gradients.flatten(1).norm(dim=1)
    return mse_loss(norms, torch.ones_like(norms))


def gradients(network):
    """Of a bias that nothing depends on, zeros."""
    return [torch.zeros_like(param) if param.grad is None else param.grad for param in network.parameters()]


class Task:
    """One of a kind that ``step`` does once."""

    def __init__(self, task, weights, inputs):
        self.task = task
        for name, layers in task["networks"].items():
            setattr(self, name, build(layers))
        self.assign(weights, inputs)

    def assign(self, weights, inputs):
        self.optimizers = {}
        for name, arrays in weights.items():
            network = getattr(self, name)
            with torch.no_grad():
                for param, array in zip(network.parameters(), arrays, strict=True):
                    param.copy_(torch.from_numpy(array))
            self.optimizers[name] = self.optimizer_of(network)
        self.inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}

    def optimizer_of(self, network):
        if "optimizer" not in self.task:
            return None
        name, options = self.task["optimizer"]
        return {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[name](network.parameters(), **options)

    def wait(self):
        pass

    def update(self, name, loss):
        self.optimizers[name].zero_grad()
        loss.backward(inputs=list(getattr(self, name).parameters()))
        self.optimizers[name].step()
        return gradients(getattr(self, name))

    def update_critic(self, real, fake, eps):
        loss = self.critic(fake).mean() - self.critic(real).mean()
        return self.update("critic", loss + self.task["weight"] * penalty(self.critic, real, fake, eps))


class Penalty(Task):
    """Value and gradients in the critic's parameters."""

    def step(self):
        self.critic.zero_grad()
        value = penalty(self.critic, self.inputs["real"], self.inputs["fake"], self.inputs["eps"])
        value.backward()
        return {"values": [value.detach()], "critic": gradients(self.critic)}


class CriticStep(Task):
    """One update of the critic."""

    def step(self):
        return {"critic": self.update_critic(self.inputs["real"], self.inputs["fake"], self.inputs["eps"])}


class Iteration(Task):
    """Updates of the critic, one for each of real's first axis, each on new samples; then one of the generator."""

    def step(self):
        found = {}
        for index, latent in enumerate(self.inputs["latent"][:-1]):
            found = self.between(index, latent)
        loss = -self.critic(self.generator(self.inputs["latent"][-1])).mean()
        return found | {"generator": self.update("generator", loss)}

    def between(self, index, latent):
        with torch.no_grad():
            fake = self.generator(latent)
        return {"critic": self.update_critic(self.inputs["real"][index], fake, self.inputs["eps"][index])}


class ClippedIteration(Iteration):
    """The original WGAN's: updates of the critic without a penalty, each with its clip."""

    def between(self, index, latent):
        real, found = self.inputs["real"][index], {}
        with torch.no_grad():
            fake = self.generator(latent[: len(real)])
        for number, factors in enumerate(self.task["losses"]):
            pairs = zip(factors, (real, fake), strict=True)
            loss = sum(factor * self.critic(samples).mean() for factor, samples in pairs if factor)
            found[f"critic {number}"] = self.update("critic", loss)
            with torch.no_grad():
                for param, bound in zip(self.critic.parameters(), self.task["bounds"], strict=True):
                    if bound is not None:
                        param.clamp_(-bound, bound)
        return found | {"critic weights": [param.detach() for param in self.critic.parameters()]}


TASKS = {
    "gradient_penalty": Penalty,
    "critic_step": CriticStep,
    "iteration": Iteration,
    "clipped_iteration": ClippedIteration,
}


class Layouts:
    """PyTorch's own."""

    samples = staticmethod(layout.same)

    @staticmethod
    def parameters(layers, shapes):
        return map(layout.same, shapes)


class Framework:
    layout = Layouts

    def __init__(self, threads):
        torch.set_num_threads(threads)
        self.versions = {"torch": torch.__version__}

    def build(self, task, weights, inputs):
        return TASKS[task["name"]](task, weights, inputs)


if __name__ == "__main__":
    serve(Worker(Framework))
