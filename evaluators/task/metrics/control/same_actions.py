"""Agreement of two policies."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric, Outputs


class SameActions(MeanMetric):
    """The share of steps of the other policy's episode at which this one takes the same action in its own.

    After the first difference the policies may see different observations, so that they may differ in more steps.
    """

    name = "agreement"
    unit = "%"
    scale = 100.0
    bounds = (0.0, 1.0)

    def per_example(self, outputs: Outputs, labels: Outputs) -> NDArray[np.float64]:
        """Returns the share for each episode, `(b,)`; the output `actions` is `(b, steps)`, -1 after an episode's end."""
        actions, others = np.asarray(outputs["actions"]), np.asarray(labels["actions"])
        taken = others >= 0
        return np.asarray(((actions == others) & taken).sum(1) / np.maximum(taken.sum(1), 1))
