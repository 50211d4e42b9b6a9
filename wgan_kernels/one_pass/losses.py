"""What a critic step minimises, L = mean f(fake) − mean f(real) + weight·penalty, and what it tells of it."""

import torch

from ..ops.wasserstein import critic_loss

NAMES = ("loss", "wasserstein", "penalty", "gradient_norm")


def seed(scores, batch):
    """∂L/∂scores of real and fake samples, ``batch`` of each, and 1 of those behind, whose gradients are wanted."""
    there(scores)
    each = torch.ones_like(scores)
    each[:batch] = -1 / scores[:batch].numel()
    each[batch : 2 * batch] = 1 / scores[:batch].numel()
    return each


def there(scores):
    """The scores, of which there have to be some: a mean over none is NaN."""
    if not scores.numel():
        raise ValueError(f"critic: expected it to return scores, got shape {tuple(scores.shape)}")
    return scores


def metrics(real_scores, fake_scores, weight, **found):
    """found: the penalty, and with it the gradient's mean norm."""
    wasserstein = -critic_loss(real_scores, fake_scores)
    penalty = found.get("penalty")
    return {
        "loss": -wasserstein if penalty is None else weight * penalty - wasserstein,
        "wasserstein": wasserstein,
    } | found
