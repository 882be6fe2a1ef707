import numpy as np
import pytest
from scipy.fft import dct
from scipy.signal import ShortTimeFFT, get_window

from spaces.errors import ConfigError
from spaces.sound_features import LogMel

SOUND = np.random.default_rng(0).normal(0, 0.1, 4000)


def reference_filters(features):
    """Triangles one by one, after librosa.filters.mel and torchaudio.functional.melscale_fbanks."""

    def hz_of(mel):
        if features.mel_scale == "htk":
            return 700 * (10 ** (mel / 2595) - 1)
        return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    def mel_of(hz):
        if features.mel_scale == "htk":
            return 2595 * np.log10(1 + hz / 700)
        return 3 * hz / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    ends = mel_of(features.f_min), mel_of(features.f_max or features.rate / 2)
    points = [hz_of(mel) for mel in np.linspace(*ends, features.mels + 2)]
    filters = np.zeros((features.n_fft // 2 + 1, features.mels))
    for band in range(features.mels):
        low, middle, high = points[band : band + 3]
        for k in range(len(filters)):
            hz = k * features.rate / features.n_fft
            if low < hz <= middle:
                filters[k, band] = (hz - low) / (middle - low)
            elif middle < hz < high:
                filters[k, band] = (high - hz) / (high - middle)
        if features.area_normalised:
            filters[:, band] *= 2 / (high - low)
    return filters


def reference(features, sound):
    """By scipy's short-time Fourier transform and cosine transform."""
    if features.centre:
        sound = np.pad(sound, features.n_fft // 2, mode="reflect")
    pad = features.n_fft - features.window
    window = np.pad(get_window("hann", features.window), (pad // 2, pad - pad // 2))
    transform = ShortTimeFFT(window, features.hop, features.rate, mfft=features.n_fft)
    n = (len(sound) - features.n_fft) // features.hop + 1
    power = np.stack(
        [
            np.abs(np.fft.rfft(sound[i * features.hop :][: features.n_fft] * transform.win)) ** 2
            for i in range(n)
        ]
    )
    found = np.log(power @ reference_filters(features) + features.log_offset)
    if features.mfcc:
        found = dct(found, type=2, norm="ortho", axis=1)[:, : features.mfcc]
    return (found - features.mean) / features.std


SETTINGS = [
    {},
    {"mel_scale": "slaney", "area_normalised": True, "centre": True},
    {"mfcc": 13, "f_min": 80.0, "f_max": 3000.0, "mean": -3.0, "std": 2.0},
    {"window": 201, "hop": 97, "fft": 301, "mels": 12, "centre": True, "log_offset": 1e-3},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_features_equal_a_reference(settings):
    features = LogMel(**{"rate": 8000, "window": 200, "hop": 80, "mels": 20, **settings})
    expected = reference(features, SOUND)
    assert features.shape(4000) == (1, *expected.shape)
    np.testing.assert_allclose(features(SOUND)[0], expected, atol=1e-5)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_frames_equal_scipys_short_time_fourier_transform(scale):
    features = LogMel(rate=8000, window=256, hop=64, mels=20, mel_scale=scale)
    transform = ShortTimeFFT(get_window("hann", 256), 64, 8000, fft_mode="onesided", phase_shift=None)
    n = features.frames(4000)
    spectrum = transform.stft(SOUND, p0=2, p1=2 + n)  # slices that are centred on 128, 192, ...
    expected = np.log((np.abs(spectrum) ** 2).T @ reference_filters(features) + 1e-6)
    np.testing.assert_allclose(features(SOUND)[0], expected, atol=1e-5)


def test_a_tone_is_in_its_band():
    features = LogMel(rate=8000, window=400, hop=160, mels=20)
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    band = features(tone)[0].mean(axis=0).argmax()
    assert (
        abs(features.filters[:, band] @ np.arange(257) / features.filters[:, band].sum() * 8000 / 512 - 1000)
        < 100
    )


def test_layout_puts_the_channel_last():
    settings = {"rate": 8000, "window": 200, "hop": 80, "mels": 20}
    last = LogMel(**settings, layout="NHWC")
    assert last.shape(4000) == (47, 20, 1)
    np.testing.assert_array_equal(last(SOUND)[..., 0], LogMel(**settings)(SOUND)[0])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rate": 0}, r"features\.rate"),
        ({"hop": 1.5}, r"features\.hop"),
        ({"fft": 300}, r"features\.fft must be at least the window \(400\)"),
        ({"mfcc": 41}, r"features\.mfcc must be in 1\.\.40"),
        ({"f_max": 9000.0}, r"features\.f_max must be above f_min, at most 8000"),
        ({"f_min": 8000.0}, r"features\.f_max"),
        ({"f_min": -1.0}, r"features\.f_min"),
        ({"log_offset": 0.0}, r"features\.log_offset"),
        ({"std": 0.0}, r"features\.std"),
        ({"mel_scale": "bark"}, r"features\.mel_scale"),
        ({"layout": "CHW"}, r"features\.layout"),
        ({"mels": 200}, r"features\.mels=200: band 2 lies between two frequencies"),
    ],
)
def test_wrong_settings_raise(settings, match):
    with pytest.raises(ConfigError, match=match):
        LogMel(**settings)


@pytest.mark.parametrize("centre", [False, True])
def test_too_short_sounds_raise(centre):
    with pytest.raises(ConfigError, match="200 samples are too few"):
        LogMel(centre=centre).shape(200)
