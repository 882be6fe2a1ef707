"""Reads wav files as sounds of one rate and length."""

import struct
import warnings
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import reading
from spaces.errors import ConfigError, InputError

# What scipy raises where a header is cut off, or has zeros.
_INCOMPLETE = (struct.error, AttributeError, TypeError, UnboundLocalError, ZeroDivisionError)


@dataclass(frozen=True)
class Clip:
    """How a wav file becomes a sound: channels are averaged, the rate is changed, the end is cut off or padded with zeros.

    Attributes:
        rate: Samples per second.
        seconds: Length.
        resample: Whether files of another rate are resampled; else they are refused.
    """

    rate: int = 16000
    seconds: float = 1.0
    resample: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError if a value makes no sense."""
        if type(self.rate) is not int or self.rate < 1:
            raise ConfigError(f"task.data.rate must be samples per second, not {self.rate!r}")
        if not self.seconds > 0 or self.samples < 1:
            raise ConfigError(f"task.data.seconds must be a length above 0, not {self.seconds!r}")

    @property
    def samples(self) -> int:
        """Number of samples."""
        return round(self.rate * self.seconds)

    def __call__(self, path: Path) -> NDArray[np.float32]:
        """Returns the sound, `(samples,)`, full scale being -1 to 1.

        Raises:
            InputError: The file is missing, damaged, empty, no wav file, or of another rate; or its samples are not finite.
        """
        rate, raw = read_wav(path)
        if rate != self.rate and not self.resample:
            raise InputError(
                f"{path} has {rate} samples per second, not {self.rate} (task.data.rate); task.data.resample=true converts it"
            )
        # a filter reaches a few samples further
        kept = raw[: ceil((self.seconds + 0.1) * rate)]
        sound = _full_scale(kept).reshape(len(kept), -1).mean(axis=1)
        if not np.isfinite(sound).all():
            raise InputError(f"{path}: sample {int(np.argmin(np.isfinite(sound)))} is not finite")
        sound = _resampled(sound, rate, self.rate)[: self.samples]
        return np.pad(sound, (0, self.samples - len(sound))).astype(np.float32)


def read_wav(path: Path) -> tuple[int, NDArray[Any]]:
    """Returns samples per second and the samples as they are stored, `(n,)` or `(n, channels)`.

    Whole numbers of 24 bits fill the upper bytes of 32.

    Raises:
        InputError: The file is missing, damaged, empty, or no wav file of whole or floating-point numbers.
    """
    from scipy.io import wavfile

    incomplete = (wavfile.WavFileWarning, *_INCOMPLETE)
    with reading(path, "a wav file"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # further chunks, e.g. of an editor
        warnings.filterwarnings("error", message=".*EOF prematurely")
        try:
            rate, samples = wavfile.read(path)
        except incomplete as error:
            raise ValueError(f"its header or data are incomplete ({error})") from error
        if rate < 1:
            raise ValueError(f"it has {rate} samples per second")
    if not samples.size:
        raise InputError(f"{path} has no samples")
    return int(rate), np.asarray(samples)


def _full_scale(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Returns samples so that full scale is -1 to 1; bytes are unsigned, with 128 as zero."""
    if raw.dtype.kind == "f":
        return raw.astype(np.float64)
    if raw.dtype == np.uint8:
        return (raw.astype(np.float64) - 128) / 128
    return np.asarray(raw.astype(np.float64) / 2 ** (8 * raw.dtype.itemsize - 1))


def _resampled(sound: NDArray[np.float64], rate: int, wanted: int) -> NDArray[np.float64]:
    if rate == wanted:
        return sound
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    return np.asarray(resample_poly(sound, wanted // common, rate // common))
