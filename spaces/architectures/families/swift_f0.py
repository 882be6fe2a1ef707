"""SwiftF0: the pitch of speech and music by convolutions over a spectrogram (Nieradzik 2025, arXiv 2508.18440)."""

from itertools import pairwise
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spaces.architectures.family import Family, Knobs, Shape
from spaces.architectures.spectra import FixedFilters, fourier_bins, fourier_filters
from spaces.errors import ConfigError, InputError, unknown_name
from spaces.knob_spec import KnobSpec

if TYPE_CHECKING:
    from spaces.models.torch.state_dict import State

OUTPUTS = ("frames", "mean", "pitch")
HARMONICS = (2, 3, 5, 7)
_LOG_OFFSET = 1e-8
_WINDOW = 9  # bins on both sides of the likeliest one that the pitch is the mean of
_TINY = 1e-7


class SwiftF0(Family):
    """Log magnitudes of a Fourier transform, convolutions over frequency and time, and one linear layer for every frame.

    Inputs are waveforms `(samples,)`. Outputs are the bins' logits of every frame, `(n, frames, n_outputs)`. The defaults are
    the published network, whose file (`swift_f0/model.onnx` of PyPI's swift-f0 0.1.2) is a checkpoint. The Fourier transform
    is to stay float: `quantize.keep_float=[front_end.*]`.

    Args:
        rate: Samples per second.
        f_min: Lowest frequency of the spectrogram and of the pitch, Hz.
        f_max: Highest one.
        output: `frames`; `mean` of the frames' logits, to classify whole sounds; or `pitch`: `(n, frames, 2)`, the pitch in
            Hz and the confidence in 0..1 that there is one, from bins at equal distances in log frequency.

    Raises:
        ConfigError: The frequencies or the output make no sense.
    """

    name: ClassVar[str] = "swift_f0"
    knobs = (
        KnobSpec(
            "width", 8, "channels of the first convolution; every further one doubles them", low=2, high=64
        ),
        KnobSpec("depth", 4, "number of convolutions besides the last, which has one channel", low=1, high=6),
        KnobSpec("kernel", 5, "kernel size along frequency and time", (3, 5, 7)),
        KnobSpec("n_fft", 1024, "length of the Fourier transform, samples", (512, 1024, 2048)),
        KnobSpec("hop", 256, "samples from one frame to the next", (128, 256)),
        KnobSpec("axis", "linear", "distances of the spectrogram's frequencies", ("linear", "log")),
        KnobSpec(
            "dilation",
            "none",
            "of the convolutions along frequency: none; plain: 1, 2, 4, ...; harmonic: the distances of a tone's harmonics",
            ("none", "plain", "harmonic"),
        ),
    )

    def __init__(
        self, rate: int = 16000, f_min: float = 46.875, f_max: float = 2093.75, output: str = "frames"
    ) -> None:
        if not 0 < f_min < f_max <= rate / 2:
            raise ConfigError(
                f"model.family: 0 < f_min < f_max <= rate / 2 must hold, but got {f_min=}, {f_max=}, {rate=}"
            )
        if output not in OUTPUTS:
            raise ConfigError(unknown_name("output", output, OUTPUTS, "model.family.output"))
        self.rate, self.f_min, self.f_max, self.output = rate, f_min, f_max, output

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        bins = self._bins(values)
        padding = (values["n_fft"] - values["hop"]) // 2
        front_end = FixedFilters(fourier_filters(values["n_fft"], bins), values["hop"], padding)
        warp = self._warp(bins * self.rate / values["n_fft"]) if values["axis"] == "log" else None
        widths = (1, *(values["width"] * 2**at for at in range(values["depth"])), 1)
        layers = [
            _layer(n_in, n_out, values["kernel"], dilation)
            for (n_in, n_out), dilation in zip(pairwise(widths), self._dilations(values), strict=True)
        ]
        frequencies = np.geomspace(self.f_min, self.f_max, n_outputs)
        return _Network(front_end, warp, nn.Sequential(*layers), len(bins), frequencies, self.output)

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) != 1:
            return f"{self.name} takes waveforms (samples,), not inputs of shape {input_shape}"
        if input_shape[0] < values["hop"]:
            return f"{input_shape[0]} samples are less than hop={values['hop']}: they make no frame"
        n_bins = len(self._bins(values))
        if n_bins < 2:
            return f"n_fft={values['n_fft']} has fewer than 2 frequencies between {self.f_min} and {self.f_max} Hz"
        if values["dilation"] == "harmonic" and values["axis"] != "log":
            return "dilation=harmonic needs axis=log: harmonics have equal distances only there"
        if max(self._dilations(values)) >= n_bins:
            return f"dilation={values['dilation']} reaches beyond the {n_bins} frequencies of n_fft={values['n_fft']}"
        return None

    def state(self, path: Path, network: nn.Module) -> "State":
        """Reads a checkpoint of `torch.save`, or the published ONNX file.

        Raises:
            InputError: The file is missing, damaged or of another format.
        """
        if path.suffix != ".onnx":
            return super().state(path, network)
        return {**network.state_dict(), **_published(path)}

    def _bins(self, values: Knobs) -> NDArray[np.int64]:
        return fourier_bins(self.rate, values["n_fft"], self.f_min, self.f_max)

    def _dilations(self, values: Knobs) -> list[int]:
        """Returns the dilation along frequency of every convolution."""
        n = values["depth"] + 1
        if values["dilation"] == "harmonic":
            per_octave = (len(self._bins(values)) - 1) / log2(self.f_max / self.f_min)
            return [*(round(per_octave * log2(HARMONICS[at % len(HARMONICS)])) for at in range(n - 1)), 1]
        return [2**at if values["dilation"] == "plain" else 1 for at in range(n - 1)] + [1]

    def _warp(self, frequencies: NDArray[np.float64]) -> Tensor:
        """Returns the weights of linear interpolation at equal distances in log frequency, `(bins, bins)`."""
        wanted = np.geomspace(frequencies[0], frequencies[-1], len(frequencies))
        one_hot = np.eye(len(frequencies))
        weights = np.stack([np.interp(wanted, frequencies, row) for row in one_hot], axis=1)
        return torch.tensor(weights.astype(np.float32))


class _Network(nn.Module):
    """Waveforms -> the output that is asked for."""

    warp: Tensor | None
    frequencies: Tensor

    def __init__(
        self,
        front_end: nn.Module,
        warp: Tensor | None,
        layers: nn.Module,
        n_bins: int,
        frequencies: NDArray[np.float64],
        output: str,
    ) -> None:
        super().__init__()
        self.front_end, self.layers, self.output = front_end, layers, output
        self.register_buffer("warp", warp)
        self.projection = nn.Conv1d(n_bins, len(frequencies), 1)
        made = torch.tensor(frequencies.astype(np.float32)) if output == "pitch" else None
        self.register_buffer("frequencies", made)

    def extra_repr(self) -> str:
        """Returns what decides the outputs besides the weights."""
        return f"{self.output}, {'linear' if self.warp is None else 'log'}"

    def forward(self, sounds: Tensor) -> Tensor:
        """`(n, samples)` -> logits or pitches."""
        x = self.front_end(sounds)
        if self.warp is not None:
            x = self.warp @ x
        x = self.layers(torch.log(x + _LOG_OFFSET).unsqueeze(1)).squeeze(1)
        logits = self.projection(x).transpose(1, 2)
        if self.output == "mean":
            return logits.mean(dim=1)  # type: ignore[no-any-return]
        return logits if self.output == "frames" else pitch_of(logits, self.frequencies)


def pitch_of(logits: Tensor, frequencies: Tensor) -> Tensor:
    """Returns the pitch and the confidence: the mean frequency of the bins around the likeliest one, and their probability.

    Args:
        logits: `(..., bins)`.
        frequencies: Of the bins, Hz, `(bins,)`.

    Returns:
        `(..., 2)`: Hz, and 0..1.
    """
    shares = logits.softmax(dim=-1)
    bins = torch.arange(logits.shape[-1], device=logits.device)
    near = (bins - shares.argmax(dim=-1, keepdim=True)).abs() <= _WINDOW
    shares = shares * near.to(shares.dtype)
    confidence = shares.sum(dim=-1, keepdim=True)
    hertz = (shares / (confidence + _TINY) * frequencies).sum(dim=-1, keepdim=True)
    return torch.cat([hertz, confidence], dim=-1)


def _layer(n_in: int, n_out: int, kernel: int, dilation: int) -> nn.Sequential:
    padding = (kernel // 2 * dilation, kernel // 2)
    conv = nn.Conv2d(n_in, n_out, kernel, padding=padding, dilation=(dilation, 1), bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


def _published(path: Path) -> "State":
    """Returns the weights of the published file; its BatchNorms are folded, so that ours only add the biases."""
    from onnx.numpy_helper import to_array

    from spaces.models.onnx_file import read_onnx

    graph = read_onnx(path).graph
    arrays = {i.name: torch.from_numpy(to_array(i).copy()) for i in graph.initializer}
    convolutions = [node.input for node in graph.node if node.op_type == "Conv"]
    if not convolutions or any(name not in arrays for inputs in convolutions for name in inputs[1:]):
        raise InputError(
            f"{path}: its convolutions have no constant weights; swift_f0/model.onnx of swift-f0 0.1.2 is needed"
        )
    *layers, (_, weight, bias) = convolutions
    state = {"projection.weight": arrays[weight], "projection.bias": arrays[bias]}
    eps = nn.BatchNorm2d(1, device="meta").eps
    for at, (_, weight, bias) in enumerate(layers):
        ones = torch.ones_like(arrays[bias])
        state |= {
            f"layers.{at}.0.weight": arrays[weight],
            f"layers.{at}.1.weight": ones * (1 + eps) ** 0.5,
            f"layers.{at}.1.bias": arrays[bias],
            f"layers.{at}.1.running_mean": 0 * ones,
            f"layers.{at}.1.running_var": ones,
        }
    return state
