"""Random masks on channels, trained to a budget of MACs (VTrans, arXiv 2406.05276)."""

from contextlib import ExitStack

import torch
from torch import Tensor

from spaces.errors import StageError
from spaces.pruning.budgets.mac_budget import check_level, kept_within
from spaces.pruning.sparsity.channel_weights import scale_channels
from spaces.pruning.sparsity.mask_budget import MaskBudget
from spaces.pruning.sparsity.mask_places import mask_places
from spaces.pruning.sparsity.masks import Masks
from spaces.pruning.sparsity.sparsifier import Aim, Sparsifier, Subject
from spaces.recovery.training.batch import Loss

DECIDED = 0.6  # share of the training after which it is fixed which channels are on


class BottleneckMasks(Sparsifier):
    """A Gaussian mask on every channel, whose mean and variance are learned.

    The paper keeps a channel while its signal outweighs its noise. Here the channels with the highest
    signal-to-noise ratio that fit the budget are kept: both agree after a long training, but this meets the
    budget after a short one, too. Which channels are on is fixed before the end of the training, so that the
    network can adapt. At the end the means are folded into parameters; channels that are off are exactly
    zero.
    """

    name = "bottleneck"
    has_level = True

    def __init__(self, subject: Subject, aim: Aim) -> None:
        """Adds masks to the network, until `finish`.

        Raises:
            StageError: The budget cannot be met, or no channel can be masked.
        """
        check_level(subject.shares, aim.level, "sparsify")
        self._subject, self._aim = subject, aim
        self._places = mask_places(subject.module, subject.groups, subject.inputs)
        masked = {name for place in self._places for name in place.rows}
        self._masked = [group for group in subject.groups if group.name in masked]
        if not self._masked:
            raise StageError(
                f"sparsify.method={self.name} needs layers or BatchNorms with weights to fold masks into, but what yields "
                f"the channels of {', '.join(group.name for group in subject.groups)} has none"
            )
        self._budget = MaskBudget(Masks(self._masked, aim.seed), subject.shares, aim)
        self._acting = ExitStack()
        self._acting.enter_context(self._budget.masks.acting(subject.module, self._places))

    @property
    def loss(self) -> Loss:
        """The task's loss, as a module that contains the masks."""
        return self._budget

    def after_backward(self, step: int, n_steps: int) -> None:
        """Updates the masks; after `DECIDED` of the steps, fixes which channels are on."""
        if self._budget.masks.decided:
            self._budget.skip_step()
            return
        self._budget.step_masks(step, n_steps)
        if step + 1 >= DECIDED * n_steps:
            scores = self._budget.scores()
            self._budget.masks.decide(kept_within(self._subject.shares, scores, self._aim.level))

    def finish(self) -> dict[str, Tensor]:
        """Removes the masks from the network and folds them into its parameters."""
        self._acting.close()
        masks, parameters = self._budget.masks, dict(self._subject.module.named_parameters())
        means, on = masks.by_group(masks.means.detach()), masks.by_group(masks.on)
        for group in self._masked:
            places = tuple(place.module for place in self._places if group.name in place.rows)
            scale_channels(group, parameters, means[group.name], places)
            # also zeroes the filters before a BatchNorm of channels that are off
            scale_channels(group, parameters, on[group.name])
        whole = {group.name: torch.ones(group.n_channels, dtype=torch.bool) for group in self._subject.groups}
        return whole | {name: values > 0 for name, values in on.items()}
