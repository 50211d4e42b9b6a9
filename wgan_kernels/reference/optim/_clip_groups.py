"""A ``clip`` per parameter group, beside what torch's optimizers keep there."""


class ClipGroups:
    """Mixin before a ``torch.optim`` class: every group has a ``clip``, its own or the one given here."""

    def __init__(self, params, *, clip, **settings):
        super().__init__(params, **settings)
        self.defaults["clip"] = clip
        self._complete()

    def load_state_dict(self, state_dict):
        """As torch's; where the saved groups have no clip, torch's own have none, each group keeps the one it has."""
        clips = [group["clip"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, saved, clip in zip(self.param_groups, state_dict["param_groups"], clips, strict=True):
            group["clip"] = saved.get("clip", clip)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._complete()

    def _complete(self):
        for group in self.param_groups:
            group.setdefault("clip", self.defaults["clip"])
