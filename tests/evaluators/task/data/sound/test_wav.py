import struct
from contextlib import suppress

import numpy as np
import pytest
from scipy.io import wavfile

from evaluators.task.data.sound.wav import Clip, read_wav
from spaces.errors import ConfigError, InputError

RATE = 8000
SOUND = 0.5 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)


def stored(kind):
    """The sound in each of the formats, as scipy writes it."""
    return {
        "u1": np.round(SOUND * 127 + 128).astype(np.uint8),
        "i2": np.round(SOUND * 2**15).astype(np.int16),
        "i4": np.round(SOUND * 2**31).astype(np.int32),
        "f4": SOUND.astype(np.float32),
        "f8": SOUND,
    }[kind]


def write_24_bits(path, sound):
    numbers = np.round(sound * 2**23).astype("<i4")
    data = numbers.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, RATE, 3 * RATE, 3, 24, b"data", len(data))  # fmt: skip
    path.write_bytes(header + data)


@pytest.mark.parametrize(
    ("kind", "error"), [("u1", 1 / 64), ("i2", 1e-4), ("i4", 1e-6), ("f4", 1e-6), ("f8", 1e-6)]
)
def test_every_format_gives_the_same_sound(kind, error, tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, stored(kind))
    np.testing.assert_allclose(Clip(RATE, 1.0)(tmp_path / "a.wav"), SOUND, atol=error)


def test_24_bits_are_read(tmp_path):
    write_24_bits(tmp_path / "a.wav", SOUND)
    np.testing.assert_allclose(Clip(RATE, 1.0)(tmp_path / "a.wav"), SOUND, atol=1e-6)


def test_channels_are_averaged(tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, np.stack([SOUND, 0 * SOUND], axis=1).astype(np.float32))
    np.testing.assert_allclose(Clip(RATE, 1.0)(tmp_path / "a.wav"), SOUND / 2, atol=1e-6)


def test_longer_sounds_are_cut_and_shorter_ones_padded_with_zeros(tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, SOUND.astype(np.float32))
    np.testing.assert_allclose(Clip(RATE, 0.25)(tmp_path / "a.wav"), SOUND[:2000], atol=1e-6)
    padded = Clip(RATE, 1.5)(tmp_path / "a.wav")
    assert padded.dtype == np.float32
    np.testing.assert_allclose(padded, [*SOUND, *np.zeros(4000)], atol=1e-6)


@pytest.mark.parametrize("wanted", [4000, 16000, 11025])
def test_another_rate_is_resampled_or_refused(wanted, tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, SOUND.astype(np.float32))
    sound = Clip(wanted, 1.0)(tmp_path / "a.wav")
    expected = 0.5 * np.sin(2 * np.pi * 300 * np.arange(wanted) / wanted)
    middle = slice(wanted // 10, -wanted // 10)
    np.testing.assert_allclose(sound[middle], expected[middle], atol=5e-3)
    with pytest.raises(InputError, match=rf"a\.wav has 8000 samples per second, not {wanted}"):
        Clip(wanted, 1.0, resample=False)(tmp_path / "a.wav")


def test_cutting_first_does_not_change_resampled_sounds(tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, SOUND.astype(np.float32))
    whole = Clip(6000, 1.0)(tmp_path / "a.wav")
    np.testing.assert_allclose(Clip(6000, 0.5)(tmp_path / "a.wav"), whole[:3000], atol=1e-6)


@pytest.mark.parametrize("length", [0, 3, 10, 12, 20, 30, 36, 40, 44, 45, 1000, 16043])
def test_a_file_that_is_cut_off_raises_with_its_name(length, tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, stored("i2"))
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:length])
    with pytest.raises(InputError, match=r"a\.wav"):
        read_wav(tmp_path / "a.wav")


def test_damaged_headers_raise_nothing_else(tmp_path):
    wavfile.write(tmp_path / "a.wav", RATE, stored("i2")[:100])
    data, random = (tmp_path / "a.wav").read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        changed[random.integers(8, 40)] = random.integers(256)
        (tmp_path / "a.wav").write_bytes(bytes(changed))
        with suppress(InputError):
            Clip(RATE, 0.1)(tmp_path / "a.wav")


def test_other_files_raise_with_their_name(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"ID3 is no wav file" * 10)
    with pytest.raises(InputError, match=r"a\.wav is damaged, or not a wav file"):
        read_wav(tmp_path / "a.wav")
    with pytest.raises(InputError, match=r"b\.wav: there is no such file"):
        read_wav(tmp_path / "b.wav")
    wavfile.write(tmp_path / "c.wav", RATE, np.empty(0, np.int16))
    with pytest.raises(InputError, match=r"c\.wav"):
        read_wav(tmp_path / "c.wav")
    wavfile.write(tmp_path / "d.wav", RATE, np.array([0, np.nan, 1], np.float32))
    with pytest.raises(InputError, match=r"d\.wav: sample 1 is not finite"):
        Clip(RATE)(tmp_path / "d.wav")


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": 8000.0}, {"seconds": 0}, {"seconds": -1.0}])
def test_wrong_settings_raise(wrong):
    with pytest.raises(ConfigError, match=r"task\.data\."):
        Clip(**wrong)
