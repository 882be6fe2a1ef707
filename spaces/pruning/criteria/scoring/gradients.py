"""First-order effects of parameters on a loss, per batch, without modifying the network."""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spaces.pruning.groups.group import Group
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec
from spaces.stages.torch_outputs import judged_output

Loss = Callable[[Tensor, slice], Tensor]
"""Maps the outputs of a batch, and the slice of examples that form the batch, to a scalar."""


def first_order(
    module: nn.Module,
    groups: Collection[Group],
    inputs: Tensor,
    batch_size: int,
    loss: Loss,
    output: OutputSpec = FIRST_OUTPUT,
) -> Iterator[dict[str, Tensor]]:
    """Yields, for every batch, `w * dL/dw` by name of each parameter that shrinks with a group, in its shape.

    Gradients are taken with respect to copies that share the parameters' memory, so that the network's own
    `grad` and `requires_grad` are unchanged.

    Args:
        module: The network, in eval mode.
        groups: The groups whose parameters are used.
        inputs: `(n, *input.shape)`.
        batch_size: Examples per batch; the last may have fewer.
        loss: The function to differentiate.
        output: The output that the loss gets, as logits.
    """
    copies = {name: p.detach() for name, p in module.named_parameters()}
    sliced = {s.name for group in groups for s in group.slices}
    weights = {name: copy.requires_grad_() for name, copy in copies.items() if name in sliced}
    for start in range(0, len(inputs), batch_size):
        part = slice(start, min(start + batch_size, len(inputs)))
        with torch.enable_grad():
            outputs = functional_call(module, copies, (inputs[part],))
            value = loss(judged_output(outputs, output), part)
            gradients = torch.autograd.grad(
                value, list(weights.values()), materialize_grads=True, allow_unused=True
            )
        yield {n: w.detach() * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
