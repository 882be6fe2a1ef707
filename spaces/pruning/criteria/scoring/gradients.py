"""First-order effects of parameters on a loss, batch by batch, without a trace in the network."""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spaces.pruning.groups.group import Group

Loss = Callable[[Tensor, slice], Tensor]
"""Maps the outputs of some examples, and which examples they are, to a scalar."""


def first_order(
    module: nn.Module, groups: Collection[Group], inputs: Tensor, batch_size: int, loss: Loss
) -> Iterator[dict[str, Tensor]]:
    """Yields for every batch `w * dL/dw` of each parameter that shrinks with a group, in its shape.

    Gradients go to copies that share the parameters' memory, so that the network's own stay as they are.

    Args:
        module: The network, in eval mode.
        groups: The channels in question.
        inputs: `(n, *input.shape)`.
        batch_size: Most examples a batch.
        loss: What to differentiate.
    """
    copies = {name: p.detach() for name, p in module.named_parameters()}
    named = {s.name for group in groups for s in group.slices}
    wanted = {name: copy.requires_grad_() for name, copy in copies.items() if name in named}
    for start in range(0, len(inputs), batch_size):
        part = slice(start, min(start + batch_size, len(inputs)))
        with torch.enable_grad():
            value = loss(functional_call(module, copies, (inputs[part],)), part)
            found = torch.autograd.grad(
                value, list(wanted.values()), materialize_grads=True, allow_unused=True
            )
        yield {n: w.detach() * g for (n, w), g in zip(wanted.items(), found, strict=True)}
