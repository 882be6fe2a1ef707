"""How a module tells what it does with channels, where torch-pruning cannot see it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class ChannelMap(Protocol):
    """A module without weights that passes each channel on under another number, and may add channels of its own.

    A network's own modules may have these two methods. An example is a shortcut that pads with channels of zeros::

        def channel_map(self, n_inputs):
            return range(self.before, self.before + n_inputs)

        def keep_channels(self, inputs, outputs):
            before = sum(channel < self.before for channel in outputs)
            self.before, self.after = before, len(outputs) - before - len(inputs)
    """

    def channel_map(self, n_inputs: int) -> Sequence[int]:
        """Returns, for each input channel, the number of the output channel that it becomes.

        Args:
            n_inputs: How many channels come in: the size of axis 1.
        """

    def keep_channels(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Changes the module so that it does the same with what is left.

        Args:
            inputs: The input channels that are left, by their old numbers, ascending.
            outputs: The output channels that are to be left: what the inputs become, and some of its own.
        """
