import numpy as np
import pytest
import torch

from spaces.architectures.spectra import FixedFilters, fourier_bins, fourier_filters, wavelet_filters

SIGNAL = np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)


def test_fourier_filters_are_a_short_time_fourier_transform():
    bins = fourier_bins(16000, 128, 1000, 4000)
    assert bins.tolist() == list(range(8, 33))
    found = FixedFilters(fourier_filters(128, bins), 32, 0)(torch.from_numpy(SIGNAL))
    spectra = torch.stft(
        torch.from_numpy(SIGNAL), 128, 32, window=torch.hann_window(128), center=False, return_complex=True
    )
    torch.testing.assert_close(found, spectra.abs()[:, 8:33], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wavelet", ["ricker", "morlet"])
def test_the_wavelet_transform_is_that_by_fourier_transform(wavelet):
    """W(a, b) = IFFT(X(f) conj(Psi(a f))), with room for the wavelets beyond both ends."""
    filters = wavelet_filters(wavelet, np.geomspace(2, 16, 8))
    length = filters.shape[1]
    found = FixedFilters(filters, 1, length // 2)(torch.from_numpy(SIGNAL)).numpy()
    n = SIGNAL.shape[1] + length
    wavelets = np.fft.fft(np.roll(np.pad(filters.conj(), ((0, 0), (0, n - length))), -(length // 2), axis=1))
    wanted = np.fft.ifft(np.fft.fft(SIGNAL, n)[:, None] * wavelets.conj())[..., : SIGNAL.shape[1]]
    wanted = np.abs(wanted) if wavelet == "morlet" else wanted.real
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_wavelets_have_unit_energy_and_no_mean():
    for wavelet in ("ricker", "morlet"):
        filters = wavelet_filters(wavelet, np.geomspace(2, 16, 8))
        np.testing.assert_allclose((np.abs(filters) ** 2).sum(1), 1, rtol=1e-3)
        np.testing.assert_allclose(filters.sum(1), 0, atol=1e-2)


def test_real_filters_are_linear_in_the_signal():
    layer = FixedFilters(wavelet_filters("ricker", np.geomspace(1, 8, 4)), 2, 32)
    first, second = torch.from_numpy(SIGNAL)
    torch.testing.assert_close(
        layer((2 * first - second)[None]),
        2 * layer(first[None]) - layer(second[None]),
        rtol=1e-4,
        atol=1e-4,
    )
