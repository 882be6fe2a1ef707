"""The protocol of modules that declare how they map channels, where a trace does not show it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class ChannelMap(Protocol):
    """A module without weights that maps input channels to output channels, and may add some of its own.

    User-defined modules may implement these two methods. An example is a shortcut that pads with channels of
    zeros::

        def channel_map(self, n_inputs):
            return range(self.before, self.before + n_inputs)

        def keep_channels(self, inputs, outputs):
            before = sum(channel < self.before for channel in outputs)
            self.before, self.after = before, len(outputs) - before - len(inputs)
    """

    def channel_map(self, n_inputs: int) -> Sequence[int]:
        """Returns, for each input channel, the index of its output channel.

        Args:
            n_inputs: Number of input channels: the size of axis 1.
        """

    def keep_channels(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Adapts the module to a cut, in place: it does the same as before with the remaining channels.

        Args:
            inputs: Indices, before the cut, of the input channels that remain, ascending.
            outputs: Indices, before the cut, of the output channels that remain, ascending: those of the
                inputs, and some of the channels that the module adds.
        """
