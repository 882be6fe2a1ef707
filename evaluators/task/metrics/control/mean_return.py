"""The mean return: what a policy earns in an episode."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Labels, MeanMetric, Outputs


class MeanReturn(MeanMetric):
    """The mean over episodes of the sum of rewards; policies are compared on the same episodes.

    Args:
        bounds: Lowest and highest possible return of an episode; None if there are none.
    """

    name = "return"

    def __init__(self, bounds: tuple[float, float] | None = None) -> None:
        self.bounds = bounds

    def per_example(self, outputs: Outputs, labels: Labels) -> NDArray[np.float64]:
        """Returns the return of each episode, `(b,)`, which is the output `return`, `(b,)`."""
        del labels
        return np.asarray(outputs["return"], np.float64)
