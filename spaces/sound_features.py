"""Features of sounds: the log-mel spectrogram and its cosine transform (MFCC), as torchaudio and librosa compute them."""

from dataclasses import dataclass
from functools import cached_property
from math import pi
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spaces.errors import ConfigError

MelScale = Literal["htk", "slaney"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogMel:
    """The logarithm of the energy in bands that are equally wide on the mel scale, frame by frame; MFCC if asked.

    A frame is the samples under a periodic Hann window; its power spectrum is summed with triangular weights. The defaults are
    those of torchaudio's MelSpectrogram with `center=False`; `mel_scale=slaney` with `area_normalised` are librosa's.

    Attributes:
        rate: Samples per second.
        window: Length of the window, in samples.
        hop: Samples from one frame to the next.
        mels: Number of bands.
        f_min: Lower end of the lowest band, Hz.
        f_max: Upper end of the highest band, Hz; None is half the rate.
        mfcc: Number of coefficients of the orthonormal cosine transform (type 2) of the bands; None keeps the bands.
        fft: Length of the Fourier transform, in samples; the window is padded on both sides. None is the next power of 2.
        centre: Whether frames are centred on multiples of the hop, the sound being mirrored at both ends.
        mel_scale: `htk` (2595 log10(1 + f / 700)), or `slaney` (linear up to 1 kHz).
        area_normalised: Whether each triangle is divided by half its width in Hz ("slaney" norm), so that its area is 1.
        log_offset: What is added to the energy before the natural logarithm.
        mean: What is subtracted from the features.
        std: What they are then divided by.
        layout: `NCHW` gives `(1, frames, features)`, `NHWC` `(frames, features, 1)`.
    """

    rate: int = 16000
    window: int = 400
    hop: int = 160
    mels: int = 40
    f_min: float = 20.0
    f_max: float | None = None
    mfcc: int | None = None
    fft: int | None = None
    centre: bool = False
    mel_scale: MelScale = "htk"
    area_normalised: bool = False
    log_offset: float = 1e-6
    mean: float = 0.0
    std: float = 1.0
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __post_init__(self) -> None:
        """Raises ConfigError if a value makes no sense."""
        for name in ("rate", "window", "hop", "mels"):
            self._check(name, type(getattr(self, name)) is int and getattr(self, name) > 0, "from 1 on")
        self._check(
            "fft", self.fft is None or self.fft >= self.window, f"at least the window ({self.window})"
        )
        self._check("mfcc", self.mfcc is None or 0 < self.mfcc <= self.mels, f"in 1..{self.mels} (mels)")
        self._check("f_max", self.f_min < self.top <= self.rate / 2, f"above f_min, at most {self.rate / 2}")
        self._check("f_min", self.f_min >= 0, "0 or more")
        self._check("log_offset", self.log_offset > 0, "above 0")
        self._check("std", self.std != 0, "other than 0")
        self._check("mel_scale", self.mel_scale in ("htk", "slaney"), "htk or slaney")
        self._check("layout", self.layout in ("NCHW", "NHWC"), "NCHW or NHWC")
        empty = np.flatnonzero(self.filters.sum(axis=0) == 0)
        if len(empty):
            raise ConfigError(
                f"features.mels={self.mels}: band {empty[0]} lies between two frequencies of the transform; fewer bands, or a "
                f"larger features.fft (now {self.n_fft}), are needed"
            )

    def _check(self, name: str, valid: bool, what: str) -> None:
        if not valid:
            raise ConfigError(f"features.{name} must be {what}, not {getattr(self, name)!r}")

    @property
    def n_fft(self) -> int:
        """Length of the Fourier transform, samples."""
        return self.fft or 1 << (self.window - 1).bit_length()

    @property
    def top(self) -> float:
        """Upper end of the highest band, Hz."""
        return self.rate / 2 if self.f_max is None else self.f_max

    def frames(self, n_samples: int) -> int:
        """Returns the number of frames. Raises ConfigError if there is none."""
        n = (n_samples + (self.n_fft // 2 * 2 if self.centre else 0) - self.n_fft) // self.hop + 1
        if n < 1 or (self.centre and n_samples <= self.n_fft // 2):
            raise ConfigError(f"{n_samples} samples are too few for features.fft={self.n_fft}")
        return n

    def shape(self, n_samples: int) -> tuple[int, ...]:
        """Returns the shape of the features of a sound."""
        size = (self.frames(n_samples), self.mfcc or self.mels)
        return (1, *size) if self.layout == "NCHW" else (*size, 1)

    @cached_property
    def window_values(self) -> Floats:
        """The window, padded with zeros on both sides, `(n_fft,)`."""
        hann = 0.5 - 0.5 * np.cos(2 * pi * np.arange(self.window) / self.window)
        before = (self.n_fft - self.window) // 2
        return np.pad(hann, (before, self.n_fft - self.window - before))

    @cached_property
    def filters(self) -> Floats:
        """Weight of each frequency in each band, `(n_fft // 2 + 1, mels)`."""
        frequencies = np.arange(self.n_fft // 2 + 1) * (self.rate / self.n_fft)
        low, high = _to_mel(np.array([self.f_min, self.top]), self.mel_scale)
        edges = _to_hz(np.linspace(low, high, self.mels + 2), self.mel_scale)
        rising = (frequencies[:, None] - edges[None, :-2]) / np.diff(edges)[None, :-1]
        falling = (edges[None, 2:] - frequencies[:, None]) / np.diff(edges)[None, 1:]
        weights = np.maximum(0.0, np.minimum(rising, falling))
        return np.asarray(weights * (2 / (edges[2:] - edges[:-2])) if self.area_normalised else weights)

    @cached_property
    def cosines(self) -> Floats:
        """The cosine transform of the bands, `(mels, mfcc)`; `(mels, 0)` without."""
        k, m = np.arange(self.mfcc or 0), np.arange(self.mels)
        matrix = np.sqrt(2 / self.mels) * np.cos(pi / self.mels * (m[:, None] + 0.5) * k[None])
        matrix[:, :1] /= np.sqrt(2)
        return np.asarray(matrix)

    def __call__(self, sound: NDArray[np.floating]) -> NDArray[np.float32]:
        """Returns the features, `shape(n_samples)`, of a sound `(n_samples,)`."""
        samples = sound.astype(np.float64)
        if self.centre:
            samples = np.pad(samples, self.n_fft // 2, mode="reflect")
        framed = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft)[:: self.hop]
        power = np.abs(np.fft.rfft(framed * self.window_values, axis=1)) ** 2
        found = np.log(power @ self.filters + self.log_offset)
        if self.mfcc is not None:
            found = found @ self.cosines
        return ((found - self.mean) / self.std).reshape(self.shape(len(sound))).astype(np.float32)


_BREAK_HZ, _PER_HZ = 1000.0, 3 / 200  # of the Slaney scale: linear below the break, logarithmic above
_STEP = np.log(6.4) / 27


def _to_mel(hz: Floats, scale: MelScale) -> Floats:
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hz / 700))
    above = _BREAK_HZ * _PER_HZ + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _STEP
    return np.asarray(np.where(hz < _BREAK_HZ, hz * _PER_HZ, above))


def _to_hz(mels: Floats, scale: MelScale) -> Floats:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    start = _BREAK_HZ * _PER_HZ
    above = _BREAK_HZ * np.exp(_STEP * (np.maximum(mels, start) - start))
    return np.asarray(np.where(mels < start, mels / _PER_HZ, above))
