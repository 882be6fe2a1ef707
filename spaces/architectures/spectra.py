"""Spectra as fixed convolutions, which every runtime and exporter has: nothing of them is trained."""

from math import pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Floats = NDArray[np.float64]
_WIDTHS = 4.0  # half length of a wavelet, in widths
_MORLET = 6.0


class FixedFilters(nn.Module):
    """A signal through filters that are not trained: `(n, samples)` -> `(n, filters, frames)`; magnitudes if they are complex.

    Args:
        filters: Impulse responses, `(filters, length)`, as a convolution's kernel: not turned round.
        stride: Samples from one frame to the next.
        padding: Zeros at each end of the signal.
    """

    waves: Tensor

    def __init__(self, filters: NDArray[np.inexact], stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding, self.is_complex = stride, padding, np.iscomplexobj(filters)
        waves = np.concatenate([filters.real, filters.imag]) if self.is_complex else filters
        self.register_buffer("waves", torch.tensor(waves[:, None].astype(np.float32)))

    def extra_repr(self) -> str:
        """Returns the settings; they are part of a network's digest."""
        return f"{tuple(self.waves.shape)}, stride={self.stride}, padding={self.padding}, {self.is_complex}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the filtered signal, or its magnitudes."""
        filtered = functional.conv1d(x.unsqueeze(1), self.waves, stride=self.stride, padding=self.padding)
        if not self.is_complex:
            return filtered
        real, imaginary = filtered.chunk(2, dim=1)
        return torch.sqrt(real * real + imaginary * imaginary)


def fourier_filters(n_fft: int, bins: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Returns the bins of a Fourier transform under a periodic Hann window, `(bins, n_fft)`."""
    window = 0.5 - 0.5 * np.cos(2 * pi * np.arange(n_fft) / n_fft)
    return np.asarray(np.exp(-2j * pi * np.outer(bins, np.arange(n_fft)) / n_fft) * window)


def fourier_bins(rate: float, n_fft: int, f_min: float, f_max: float) -> NDArray[np.int64]:
    """Returns the bins of a Fourier transform whose frequencies (Hz) lie within bounds."""
    return np.arange(int(np.ceil(f_min * n_fft / rate)), int(np.floor(f_max * n_fft / rate)) + 1)


def wavelet_filters(wavelet: str, scales: Floats) -> NDArray[np.inexact]:
    """Returns conjugated wavelets of unit energy, for a continuous wavelet transform, `(scales, length)`; the middle is time 0.

    Args:
        wavelet: `ricker`, real, or `morlet`, complex, with a centre frequency of 6 radians per scale.
        scales: Widths, samples.
    """
    half = int(np.ceil(_WIDTHS * scales.max()))
    t = np.arange(-half, half + 1) / scales[:, None]
    bell = np.exp(-(t**2) / 2) / np.sqrt(scales)[:, None]
    if wavelet == "ricker":
        return np.asarray(2 / (np.sqrt(3) * pi**0.25) * (1 - t**2) * bell)
    return np.asarray(pi**-0.25 * np.exp(-1j * _MORLET * t) * bell)
