"""A torch network with the log-mel front end before it, so that the exported file takes waveforms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext, ModelSource
from spaces.sound_features import LogMel
from spaces.stages.artifact import Artifact, InputSpec, Kind, Split
from spaces.stages.inputs import Inputs
from spaces.stages.torch_artifact import torch_artifact


class SoundFrontEndModel(ModelSource):
    """Waveforms -> log-mel or MFCC features -> another source's torch network.

    A network that is trained on first use is trained on the features. The front end computes in floating point; layers of it
    that could be quantized are named `front_end.*`: keep them float (`quantize.keep_float`), because energies span too many
    orders of magnitude for 8 bits.

    Args:
        network: The source of the network that takes features.
        features: How they are computed.
        seconds: Length of a sound.
    """

    kind: ClassVar[Kind | None] = "torch"

    def __init__(self, network: ModelSource, features: LogMel, seconds: float = 1.0) -> None:
        if not isinstance(network, ModelSource) or not isinstance(features, LogMel):
            raise ConfigError(
                "model.network and model.features must name a model source and the features in `_target_`"
            )
        self.network, self.features = network, features
        self.samples = round(features.rate * seconds)
        self.shape = features.shape(self.samples)

    def load(self, context: LoadContext) -> Artifact:
        """Returns both as one network that takes `(n, samples)`.

        Raises:
            InputError: The network is no torch network, or takes inputs of another shape.
        """
        import torch

        from spaces.models.torch.log_mel import LogMelFrontEnd

        train = None if context.train is None else _Features(context.train, self.features)
        loaded = self.network.load(replace(context, train=train))
        if not isinstance(loaded.model, torch.nn.Module):
            raise InputError("model=sound_front_end needs a torch network, but model.network is an ONNX file")
        if loaded.input.shape != self.shape:
            raise InputError(
                f"model.features gives inputs of shape {list(self.shape)}, but model.network takes {list(loaded.input.shape)}"
            )
        both = torch.nn.Sequential()
        both.add_module("front_end", LogMelFrontEnd(self.features))
        both.add_module("network", loaded.model)
        return torch_artifact(both, InputSpec((self.samples,)))


@dataclass(frozen=True)
class _Features:
    """The features of a split's waveforms, as a split.

    Attributes:
        split: The waveforms.
        features: How features are computed.
    """

    split: Split
    features: LogMel

    @property
    def digest(self) -> str:
        return digest_of(self.split.digest, self.features)

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Inputs, NDArray[Any]]]:
        for sounds, labels in self.split.batches(batch_size, limit):
            if not isinstance(sounds, np.ndarray) or sounds.ndim != 2:
                raise InputError(
                    "model=sound_front_end takes waveforms (n, samples): set task.data.features=null"
                )
            yield np.stack([self.features(sound) for sound in sounds]), labels
