"""Forward and backward passes of a network in training as CUDA graphs.

On a GPU, the step of a small network takes most of its time to launch kernels. A CUDA graph launches those of a whole pass at once.
It repeats what was recorded: a network whose operators depend on the state of Python objects, e.g. on a counter of steps or on
`random`, would be trained as it was at the first step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Graphed:
    """Calls a network in training; from the second batch of the first one's shape on, these run as CUDA graphs.

    Others run operator by operator, and so does everything on another device, with forward hooks, or where an operator cannot be
    recorded.

    Args:
        network: The network, in the modes of the training, on its device.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._call: Callable[[Tensor], Any] | None = None
        self._shape: torch.Size | None = None

    def __call__(self, inputs: Tensor) -> Any:
        """Returns the network's outputs, for a backward pass.

        Args:
            inputs: `(b, *input.shape)`.
        """
        if self._shape is None:
            self._shape = inputs.shape
            return self._network(inputs)
        if inputs.shape != self._shape:
            return self._network(inputs)
        if self._call is None:
            self._call = self._recorded(inputs)
        return self._call(inputs)

    def _recorded(self, inputs: Tensor) -> Callable[[Tensor], Any]:
        if not inputs.is_cuda or any(part._forward_hooks for part in self._network.modules()):
            return self._network
        # The recorder replaces `forward`: of this shell, so that the network keeps its own.
        shell = _Shell(self._network)
        try:
            with _restored_buffers(self._network), _restored_generator(inputs.device):
                _check_that_nothing_waits(shell, inputs)
                torch.cuda.make_graphed_callables(shell, (inputs.clone(),), allow_unused_input=True)
        except RuntimeError:
            torch.cuda.synchronize()
            return self._network
        return shell


class _Shell(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Any:
        return self.network(inputs)


@contextmanager
def _restored_buffers(network: nn.Module) -> Iterator[None]:
    """Puts buffers back when the block ends: recording runs the network a few times."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


@contextmanager
def _restored_generator(device: torch.device) -> Iterator[None]:
    """Puts the random generator back after an error: a recording that was broken off leaves it unusable."""
    generator = torch.cuda.default_generators[
        torch.cuda.current_device() if device.index is None else device.index
    ]
    before = generator.clone_state()
    try:
        yield
    except RuntimeError:
        generator.graphsafe_set_state(before)
        raise


def _check_that_nothing_waits(network: nn.Module, inputs: Tensor) -> None:
    """Runs the network once; raises a RuntimeError at an operator that waits for the GPU, which cannot be recorded."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        network(inputs)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
