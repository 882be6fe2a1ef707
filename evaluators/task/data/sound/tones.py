"""Sounds made by code, written as a folder of wav files on first use: for examples and tests."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Examples
from evaluators.task.data.sound.sound_folder import SoundFolderData
from spaces.digest import digest_of
from spaces.errors import ConfigError

Sound = NDArray[np.float64]
_VERSION = 1  # of the sounds


class TonesData(SoundFolderData):
    """Six classes of sounds in noise: low and high tones, rising and falling chirps, beats of two tones, pulses.

    Each "speaker" has a pitch and a loudness of its own; no speaker is in two splits.

    Args:
        cache_dir: Where the folder of wav files is kept.
        speakers: Number of speakers.
        sounds: Sounds of each class by each speaker.
        rate: Samples per second.
        noise: Deviation of the noise, the sounds' amplitude being about 0.1.
        seed: Seed of the sounds.
        **settings: Those of `SoundFolderData`.
    """

    def __init__(
        self,
        cache_dir: str,
        speakers: int = 40,
        sounds: int = 5,
        rate: int = 8000,
        noise: float = 0.1,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        for name, value in (("speakers", speakers), ("sounds", sounds)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"task.data.{name} must be a whole number from 1 on, not {value!r}")
        super().__init__(cache_dir, rate=rate, **settings)
        self._rate = rate
        self._made = (speakers, sounds, float(noise), seed)

    def read(self, root: Path | None) -> Examples:
        """Returns the sounds; writes the folder if there is none. `root` has no effect."""
        folder = self._cache_dir / f"tones-{digest_of(_VERSION, self._rate, *self._made)}"
        if not folder.is_dir():
            try:
                self._cache_dir.mkdir(parents=True, exist_ok=True)
                unfinished = Path(tempfile.mkdtemp(dir=self._cache_dir, prefix=".tones-"))
                write_tones(unfinished, self._rate, *self._made)
                unfinished.replace(folder)
            except OSError as error:
                raise ConfigError(f"cache_dir={self._cache_dir} cannot be written: {error}") from error
        return super().read(folder)


def write_tones(folder: Path, rate: int, speakers: int, sounds: int, noise: float, seed: int) -> None:
    """Writes `<class>/<speaker>_nohash_<n>.wav`, one second of 16 bits each.

    Args:
        folder: An empty folder.
        rate: Samples per second.
        speakers: Number of speakers.
        sounds: Sounds of each class by each speaker.
        noise: Deviation of the noise.
        seed: Seed of the sounds.
    """
    from scipy.io import wavfile

    random = np.random.default_rng(seed)
    seconds = np.arange(rate) / rate
    for name in KINDS:
        (folder / name).mkdir()
    for speaker in range(speakers):
        pitch, loudness = random.uniform(0.8, 1.25), random.uniform(0.05, 0.15)
        for name, make in KINDS.items():
            for n in range(sounds):
                clean = loudness * _faded(make(seconds, pitch * random.uniform(0.9, 1.1), random), random)
                sound = clean + noise * random.standard_normal(rate)
                data = np.round(32767 * np.clip(sound, -1, 1)).astype(np.int16)
                wavfile.write(folder / name / f"s{speaker:03d}_nohash_{n}.wav", rate, data)


def _faded(sound: Sound, random: np.random.Generator) -> Sound:
    """Returns the sound with a random beginning and end."""
    start, length = random.uniform(0, 0.4), random.uniform(0.4, 0.6)
    place = (np.arange(len(sound)) / len(sound) - start) / length
    return sound * np.sin(np.pi * np.clip(place, 0, 1)) ** 0.5


def _tone(seconds: Sound, hz: float) -> Sound:
    return np.asarray(np.sin(2 * np.pi * hz * seconds))


def _chirp(seconds: Sound, start_hz: float, end_hz: float) -> Sound:
    return np.asarray(np.sin(2 * np.pi * (start_hz + (end_hz - start_hz) / 2 * seconds) * seconds))


KINDS: Mapping[str, Callable[[Sound, float, np.random.Generator], Sound]] = {
    "beats": lambda t, pitch, _: (_tone(t, 600 * pitch) + _tone(t, 612 * pitch)) / 2,
    "falling": lambda t, pitch, _: _chirp(t, 900 * pitch, 450 * pitch),
    "high": lambda t, pitch, _: _tone(t, 850 * pitch),
    "low": lambda t, pitch, _: _tone(t, 550 * pitch),
    "pulses": lambda t, pitch, _: _tone(t, 650 * pitch) * (_tone(t, 8) > 0),
    "rising": lambda t, pitch, _: _chirp(t, 450 * pitch, 900 * pitch),
}
