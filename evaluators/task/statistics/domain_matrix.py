"""Figures of a matrix of scores of networks, each at its best in one domain, on all domains: specialisation, generality, transfer.

The names are those of "Fragile Mastery" (GEM); its formulas are not public, and these are our reading of the names.
"""

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def specialisation_index(scores: Scores) -> Scores:
    """Returns DSI_i = (P_ii - mean of P_ij over j != i) / P_ii.

    Args:
        scores: P, `(n, n, ...)`: of the network of domain i on domain j, higher is better; n >= 2. Further axes are e.g. resamples.

    Returns:
        `(n, ...)`; 0 where a network is as good elsewhere as at home.
    """
    return generality_gap(scores) / _at_home(scores)


def generality_gap(scores: Scores) -> Scores:
    """Returns GG_i = P_ii - mean of P_ij over j != i, `(n, ...)`, of scores as `specialisation_index` takes them."""
    n = len(scores)
    home = _at_home(scores)
    return np.asarray(home - (scores.sum(axis=1) - home) / (n - 1))


def transfer_ratio(scores: Scores) -> Scores:
    """Returns CDTR_i = mean of P_ij / P_jj over j != i, `(n, ...)`: 1 where a network does elsewhere what those of the domains do."""
    shares = scores / _at_home(scores)[None]
    return np.asarray((shares.sum(axis=1) - 1) / (len(scores) - 1))


def _at_home(scores: Scores) -> Scores:
    """Returns the diagonal, `(n, ...)`."""
    return np.moveaxis(np.diagonal(scores), -1, 0)
