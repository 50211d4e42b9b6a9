"""What the two optimizers share: torch's own step, then the clip."""

from ..clip import clip_
from ._clip_groups import ClipGroups


class ClipAfterStep(ClipGroups):
    """Mixin before a ``torch.optim`` class. ``clip=c`` clamps the group's parameters into [−c, c] after each step."""

    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            if group["clip"] is not None:
                clip_(group["params"], group["clip"])
        return loss
