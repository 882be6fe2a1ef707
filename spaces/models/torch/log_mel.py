"""The log-mel spectrogram as a torch module that onnxruntime can run: the Fourier transform is a convolution."""

from math import pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.sound_features import LogMel


class LogMelFrontEnd(nn.Module):
    """Waveforms `(n, samples)` -> features `(n, *features.shape(samples))`, equal to those of `LogMel`.

    It has no parameters: nothing of it is trained, pruned or counted among the network's weights.

    Args:
        features: The settings.
    """

    waves: Tensor
    filters: Tensor
    cosines: Tensor

    def __init__(self, features: LogMel) -> None:
        super().__init__()
        self.features = features
        angles = (
            2 * pi / features.n_fft * np.outer(np.arange(features.n_fft // 2 + 1), np.arange(features.n_fft))
        )
        waves = np.concatenate([np.cos(angles), np.sin(angles)]) * features.window_values
        for name, values in (
            ("waves", waves[:, None]),
            ("filters", features.filters),
            ("cosines", features.cosines),
        ):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))

    def extra_repr(self) -> str:
        """Returns the settings; they are part of a network's digest."""
        return repr(self.features)

    def forward(self, sounds: Tensor) -> Tensor:
        """Returns the features."""
        settings = self.features
        x = sounds.unsqueeze(1)
        if settings.centre:
            x = functional.pad(x, (settings.n_fft // 2, settings.n_fft // 2), mode="reflect")
        real, imaginary = functional.conv1d(x, self.waves, stride=settings.hop).chunk(2, dim=1)
        power = (real * real + imaginary * imaginary).transpose(1, 2)
        found = torch.log(power @ self.filters + settings.log_offset)
        if settings.mfcc is not None:
            found = found @ self.cosines
        found = (found - settings.mean) / settings.std
        return found.unsqueeze(1 if settings.layout == "NCHW" else 3)
