"""The criteria, one row each. A new one is a file with a class, and a row here."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from spaces.pruning.criteria.criterion import Criterion


@dataclass(frozen=True)
class CriterionInfo:
    """What there is to know of a criterion before it is imported.

    Attributes:
        name: The value of the knob `prune.criterion`.
        factory: Where its class is, as `module:class`.
        description: One line for people.
        needs_inputs: Whether it looks at examples.
        needs_labels: Whether it looks at their labels.
    """

    name: str
    factory: str
    description: str
    needs_inputs: bool = False
    needs_labels: bool = False

    def make(self) -> Criterion:
        """Returns the criterion."""
        module, _, name = self.factory.partition(":")
        made: Criterion = getattr(import_module(module), name)()
        return made


_ROWS = (
    CriterionInfo(
        "magnitude_l1", "spaces.pruning.criteria.magnitude_l1:MagnitudeL1", "sum of absolute weights"
    ),
    CriterionInfo(
        "magnitude_l2", "spaces.pruning.criteria.magnitude_l2:MagnitudeL2", "Euclidean norm of the weights"
    ),
    CriterionInfo(
        "bn_gamma", "spaces.pruning.criteria.bn_gamma:BnGamma", "factor in the BatchNorm behind the layer"
    ),
    CriterionInfo("fpgm", "spaces.pruning.criteria.fpgm:Fpgm", "distance to the layer's other filters"),
    CriterionInfo(
        "taylor",
        "spaces.pruning.criteria.taylor:Taylor",
        "first-order change of the cross-entropy",
        needs_inputs=True,
        needs_labels=True,
    ),
    CriterionInfo(
        "disturbed_taylor",
        "spaces.pruning.criteria.disturbed_taylor:DisturbedTaylor",
        "first-order change of the distance to disturbed outputs",
        needs_inputs=True,
    ),
    CriterionInfo(
        "condition",
        "spaces.pruning.criteria.condition:Condition",
        "norms of weights and inputs, and influence on the condition number",
        needs_inputs=True,
    ),
    CriterionInfo("random", "spaces.pruning.criteria.random_scores:RandomScores", "random: the control"),
)

CRITERIA: Mapping[str, CriterionInfo] = MappingProxyType({row.name: row for row in _ROWS})
