"""What the two optimizers share: a ``clip`` per parameter group, applied when torch's own step is done."""

from ..clip import clip_


class ClipAfterStep:
    """Mixin before a ``torch.optim`` class. ``clip=c`` clamps the group's parameters into [−c, c] after each step."""

    def __init__(self, params, *, clip, **settings):
        self.clip = clip
        super().__init__(params, **settings)

    def add_param_group(self, param_group):
        super().add_param_group({"clip": self.clip, **param_group})

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:  # a state_dict of torch's own optimizer has no clip
            group.setdefault("clip", self.clip)

    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            if group["clip"] is not None:
                clip_(group["params"], group["clip"])
        return loss
