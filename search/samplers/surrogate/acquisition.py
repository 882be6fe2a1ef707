"""How much a trial of each candidate promises."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.gaussian_process import Belief

Array = NDArray[np.float64]


def log_expected_improvement(belief: Belief, best: float) -> Array:
    """Returns `(n,)` logarithms of expected improvement over `best`, accurate where there is next to none.

    Ament et al. 2023 (arXiv 2310.20708), eq. 8 and 9: far below the best, `exp` would be 0 and all candidates equal.
    """
    from scipy.special import erfcx

    std = np.maximum(belief.std, 1e-9)
    z = (belief.mean - best) / std
    density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    near = np.maximum(z, -1.0)
    plain = np.exp(-0.5 * near**2) / np.sqrt(2 * np.pi) + near * _cdf(near)
    far = np.minimum(z, -1.0)
    ratio = np.sqrt(np.pi / 2) * erfcx(-far / np.sqrt(2))  # cdf / density
    rest = np.where(far > -1e5, -far * ratio, 1 - 1 / far**2)
    tail = density + np.log(np.maximum(1 - rest, 1e-300))
    return np.asarray(np.log(std) + np.where(z > -1.0, np.log(plain), tail))


def _cdf(z: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def log_chance_below(belief: Belief, limit: float) -> Array:
    """Returns `(n,)` logarithms of the probability of a value of at most `limit`."""
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr((limit - belief.mean) / np.maximum(belief.std, 1e-9)))
