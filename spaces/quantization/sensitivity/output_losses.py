"""Losses of a network's output, compared with the float network's: 0 for equal outputs, without labels."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from spaces.errors import ConfigError, unknown_name

Floats = NDArray[np.float64]
OutputLoss = Callable[[Floats, Floats], Floats]
"""Maps the float network's outputs and others, both `(b, ...)`, to a loss of each example, `(b,)`."""

SSIM_WINDOW = 7
TEMPERATURE = 2.0  # of soft_kl
_TINY = 1e-30


def sqnr(reference: Floats, output: Floats) -> Floats:
    """Returns noise power by signal power, the inverse of the signal-to-quantization-noise ratio (MixDQ, arXiv 2405.17873)."""
    return np.asarray(mse(reference, output) / np.maximum(np.square(_flat(reference)).mean(axis=1), _TINY))


def mse(reference: Floats, output: Floats) -> Floats:
    """Returns the mean squared difference."""
    return np.asarray(np.square(_flat(output) - _flat(reference)).mean(axis=1))


def kl(reference: Floats, output: Floats) -> Floats:
    """Returns the Kullback-Leibler divergence in nats of the softmax over axis 1, mean over positions.

    Raises:
        ConfigError: There is no axis of classes, or one class only.
    """
    if reference.ndim < 2 or reference.shape[1] < 2:
        raise ConfigError(
            f"allocator.sensitivity=kl and soft_kl compare class probabilities, but the output has the shape {reference.shape}; use sqnr or mse"
        )
    log_p, log_q = _log_softmax(reference), _log_softmax(output)
    divergence = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
    return np.asarray(divergence.reshape(len(reference), -1).mean(axis=1))


def soft_kl(reference: Floats, output: Floats) -> Floats:
    """Returns `kl` of logits divided by a temperature, times its square (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Most of `kl` comes from the few examples that the network is unsure of; here more of them count, so that fewer are enough.
    """
    return TEMPERATURE**2 * kl(reference / TEMPERATURE, output / TEMPERATURE)


def ssim(reference: Floats, output: Floats) -> Floats:
    """Returns 1 minus the structural similarity of images `(b, channels, height, width)`, mean over positions and channels.

    Wang et al. 2004, IEEE TIP 13, equation 13, with a uniform window; the range is that of the reference.

    Raises:
        ConfigError: The outputs are no images.
    """
    from scipy.ndimage import uniform_filter

    if reference.ndim != 4 or min(reference.shape[2:]) < SSIM_WINDOW:
        raise ConfigError(
            f"allocator.sensitivity=ssim compares images (b, channels, height, width) of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, but the "
            f"output has the shape {reference.shape}; use sqnr, mse or kl"
        )

    def blurred(images: Floats) -> Floats:
        return np.asarray(uniform_filter(images, (1, 1, SSIM_WINDOW, SSIM_WINDOW)))

    c1, c2 = ((k * max(float(np.ptp(reference)), _TINY)) ** 2 for k in (0.01, 0.03))
    mean_x, mean_y = blurred(reference), blurred(output)
    var_x, var_y = blurred(reference**2) - mean_x**2, blurred(output**2) - mean_y**2
    shared = blurred(reference * output) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return np.asarray(1 - similarity.mean(axis=(1, 2, 3)))


OUTPUT_LOSSES: Mapping[str, OutputLoss] = MappingProxyType(
    {"sqnr": sqnr, "kl": kl, "soft_kl": soft_kl, "mse": mse, "ssim": ssim}
)


GRADIENT_LOSSES = ("fisher", "hessian")  # see `gradient_losses.py`


def check_sensitivity(name: str) -> None:
    """Raises ConfigError if there is no sensitivity of that name."""
    known = (*OUTPUT_LOSSES, *GRADIENT_LOSSES)
    if name not in known:
        raise ConfigError(unknown_name("sensitivity", name, known, "allocator.sensitivity"))


def _flat(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
