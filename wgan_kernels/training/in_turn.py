"""The critic's update as the Keras notebook has it (S0): the real images and the generated ones in turn."""

import torch
from torch import nn


class InTurnStep:
    """−mean f(real): a whole update; then mean f(fake): another. S0 calls it labels of −1 and 1.

    The published algorithm (Arjovsky et al. 2017, algorithm 1) makes one update of the sum. Of a critic with BatchNorm,
    each pass is normalised by its own images either way.
    """

    def __init__(self, critic: nn.Module, optimizer: torch.optim.Optimizer):
        """optimizer: its steps clamp the critic's weights."""
        self.critic, self.optimizer = critic, optimizer

    def __call__(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """Two updates from real and fake [B, …]; returns the loss before each and their sum, 0-d, not synchronised."""
        of_real = self._update(real, -1.0)
        of_fake = self._update(fake, 1.0)
        loss = of_real + of_fake
        return {"loss": loss, "wasserstein": -loss, "real": of_real, "fake": of_fake}

    def _update(self, images: torch.Tensor, label: float) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = label * self.critic(images).mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()
