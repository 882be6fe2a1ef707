"""What goes in and out of a module that is exported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spaces.models.exporters.batch_axis import BATCH
from spaces.models.exporters.failure import Arguments


@dataclass(frozen=True)
class Interface:
    """What goes in and out of a module.

    Attributes:
        batch: Returns the module's arguments for a batch of a size: tensors whose first axis is the batch.
        inputs: Their names in the file, in the order of the arguments.
        outputs: Names of the outputs in the file.
    """

    batch: Callable[[int], Arguments]
    inputs: Sequence[str]
    outputs: Sequence[str]

    def names(self) -> dict[str, Any]:
        """Returns the exporters' arguments that name inputs and outputs."""
        return {"input_names": list(self.inputs), "output_names": list(self.outputs)}

    def axes(self) -> Any:
        """Returns the dynamic axes of each argument."""
        given, named = self.batch(2)
        batch = {0: torch.export.Dim(BATCH)}
        return dict.fromkeys(named, batch) if named else (batch,) * len(given)
