"""Which augmentation suits a task: the richest one that the uncompressed network's answers survive.

Labels stay right under a change of the inputs only if the task is invariant to it: photographs may be flipped, digits may not.
A network that was trained well has learned which changes do not matter.
"""

import torch
from torch import Tensor, nn

from spaces.recovery.training.augmentation import ANY, AUGMENTATIONS, augment
from spaces.recovery.training.batch import Batch
from spaces.stages.torch_outputs import first_output

EXAMPLES = 256
AGREEMENT = 0.9  # share of the answers that have to stay the same


def suitable_augmentation(network: nn.Module, inputs: Tensor, seed: int) -> str:
    """Returns the name of a suitable augmentation: of those for images or for signals, that with the most changes; maybe `none`.

    Args:
        network: The uncompressed network, in eval mode, with outputs `(n, n_classes)`.
        inputs: Training examples `(n, *input.shape)`.
        seed: Seed of the random changes.
    """
    shape = tuple(inputs.shape[1:])
    rows = [r for r in AUGMENTATIONS.values() if r.inputs is not ANY and r.inputs.fit(shape) and not r.mixes]
    answers = _answers(network, inputs)
    for row in sorted(rows, key=lambda row: -len(row.changes)):
        generator = torch.Generator().manual_seed(seed)
        changed = augment(row.name, Batch(inputs, torch.zeros(len(inputs))), generator).inputs
        if (_answers(network, changed.contiguous()) == answers).double().mean() >= AGREEMENT:
            return row.name
    return "none"


@torch.no_grad()
def _answers(network: nn.Module, inputs: Tensor) -> Tensor:
    return first_output(network(inputs)).flatten(1).argmax(1)
