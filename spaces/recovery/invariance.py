"""Which augmentation suits a task: the richest one that the uncompressed network's answers survive.

Labels stay right under a change of the inputs only if the task is invariant to it: photographs may be flipped, digits may not.
A network that was trained well has learned which changes do not matter.
"""

import torch
from torch import Tensor, nn

from spaces.recovery.training.augmentation import ANY, AUGMENTATIONS, augment
from spaces.recovery.training.batch import Batch
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec
from spaces.stages.torch_outputs import judged_output

EXAMPLES = 256
AGREEMENT = 0.9  # share of the answers that have to stay the same


def suitable_augmentation(
    network: nn.Module, inputs: Tensor, seed: int, output: OutputSpec = FIRST_OUTPUT
) -> str:
    """Returns the name of a suitable augmentation: of those for images or for signals, that with the most changes; maybe `none`.

    Args:
        network: The uncompressed network, in eval mode. Outputs at several positions, whose labels would have to move
            with the inputs, suit no augmentation.
        inputs: Training examples `(n, *input.shape)`.
        seed: Seed of the random changes.
        output: The output that is judged.
    """
    shape = tuple(inputs.shape[1:])
    rows = [r for r in AUGMENTATIONS.values() if r.inputs is not ANY and r.inputs.fit(shape) and not r.mixes]
    answers = _answers(network, inputs, output)
    if answers.ndim > 1:
        return "none"
    for row in sorted(rows, key=lambda row: -len(row.changes)):
        generator = torch.Generator().manual_seed(seed)
        changed = augment(row.name, Batch(inputs, torch.zeros(len(inputs))), generator).inputs
        if (_answers(network, changed.contiguous(), output) == answers).double().mean() >= AGREEMENT:
            return row.name
    return "none"


@torch.no_grad()
def _answers(network: nn.Module, inputs: Tensor, output: OutputSpec) -> Tensor:
    """Returns the classes of each example, `(n,)`, or `(n, ...)` of its positions."""
    answers = judged_output(network(inputs), output)
    return answers.flatten(1).argmax(1) if answers[0].numel() == answers.shape[1] else answers.argmax(1)
