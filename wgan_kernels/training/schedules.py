"""What changes along a run, by the position alone: nothing has to be saved for it."""

from .config import Config

LONG = 100  # critic updates of a long iteration
FIRST, EVERY = 25, 500  # which are long: the first 25, and those whose number is a multiple of 500


def critic_updates(config: Config, iteration: int) -> int:
    """Critic updates before the generator update ``iteration``, counted from 0.

    "original": Arjovsky et al. 2017, their code: ``if gen_iterations < 25 or gen_iterations % 500 == 0: Diters = 100``.
    """
    long = config.n_critic_schedule == "original" and (iteration < FIRST or iteration % EVERY == 0)
    return LONG if long else config.n_critic


def critic_updates_before(config: Config, iteration: int) -> int:
    """The sum of ``critic_updates`` over all earlier iterations."""
    long = 0
    if config.n_critic_schedule == "original":
        long = min(iteration, FIRST) + max(iteration - 1, 0) // EVERY
    return long * LONG + (iteration - long) * config.n_critic


def is_penalised(config: Config, update: int) -> bool:
    """Whether the critic update ``update``, counted from 0 over the whole run, has the penalty, times penalty_every.

    Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 3.2 and appendix B, without
    their change of Adam's settings: the penalty shares its update with the loss.
    """
    return update % config.penalty_every == 0


def learning_rate(config: Config, iteration: int) -> float:
    """lr · (1 − (1 − lr_end) · iteration / iterations)"""
    return config.lr * (1 - (1 - config.lr_end) * iteration / config.iterations)
