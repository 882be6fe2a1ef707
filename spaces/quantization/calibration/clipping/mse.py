"""Clipping by minimum squared error from rounding and clipping, for activations and for weights."""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.calibration.clipping.base import ClipContext, Clipping, Histogram, windows
from spaces.quantization.schemes.scheme import Grid

Floats = NDArray[np.float64]

N_CANDIDATES = 256
BLOCK = 2**15  # values of a weight per block, which fits the second-level cache
SHARES = np.linspace(1.0, 0.4, 25)  # candidate shares of a weight's range


def mse_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the range with the least expected squared error.

    The error of a value inside is `step^2 / 12` on average (uniform rounding noise), that of a value outside
    is its squared distance to the range (Banner, Nahshan and Soudry, arXiv 1810.05723, equations 3 to 5, with
    the measured distribution in place of an assumed one).
    """
    lows, highs = windows(histogram, N_CANDIDATES)
    edges, counts = histogram.edges, histogram.counts.astype(np.float64)
    centres = (edges[1:] + edges[:-1]) / 2
    down = _beyond(-centres[::-1], counts[::-1], -lows)
    up = _beyond(centres, counts, highs)
    inside = counts.sum() - down[0] - up[0]
    error = down[1] + up[1] + inside * context.step(lows, highs) ** 2 / 12
    best = int(np.argmin(error))
    return float(lows[best]), float(highs[best])


def _beyond(centres: Floats, counts: Floats, limits: Floats) -> tuple[Floats, Floats]:
    """Returns the number of values beyond each limit, and the sum of their squared distances to it."""
    powers = np.stack([counts, counts * centres, counts * centres**2])
    tails = np.cumsum(powers[:, ::-1], axis=1)[:, ::-1]
    first = np.searchsorted(centres, limits, side="right")
    n, total, squares = np.pad(tails, ((0, 0), (0, 1)))[:, first]
    return n, squares - 2 * limits * total + limits**2 * n


def mse_share(
    weight: NDArray[np.float32], grid_of: Callable[[NDArray[np.float64]], Grid]
) -> NDArray[np.float64]:
    """Returns the share of a weight's range with the least squared error, one for each of its grid's scales.

    At 4 bits, clipping a few outliers reduces the rounding error of all other values considerably.

    Args:
        weight: The float weight.
        grid_of: Returns the grid over given shares, `()` or `(n_channels,)`, of the range.
    """
    axis = grid_of(np.ones(())).axis
    rows = (
        weight.reshape(1, -1)
        if axis is None
        else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    )
    rows, buffer = np.ascontiguousarray(rows), np.empty(BLOCK, np.float32)
    shape = () if axis is None else (len(rows),)
    best, least = np.ones(shape), np.full(shape, np.inf)
    for share in SHARES:
        error = _squared_error(rows, grid_of(np.full(shape, share)), buffer).reshape(shape)
        best = np.where(error < least, share, best)
        least = np.minimum(error, least)
    return best


def _squared_error(rows: NDArray[np.float32], grid: Grid, buffer: NDArray[np.float32]) -> Floats:
    """Returns the squared error of `Grid.dequantized` in each row, computed in place: `(n_rows,)`.

    Args:
        rows: Values, `(n_rows, n)`.
        grid: Grid with one scale for all rows, or one per row.
        buffer: Scratch buffer, `(BLOCK,)`; is overwritten.
    """
    scale, zero = grid.scale.reshape(-1, 1), grid.zero_point.reshape(-1, 1)
    low = (-(2 ** (grid.bits - 1)) - zero).astype(np.float32)
    high = (2 ** (grid.bits - 1) - 1 - zero).astype(np.float32)
    error = np.zeros(len(rows), np.float64)
    n, n_rows = rows.shape[1], max(BLOCK // max(rows.shape[1], 1), 1)
    for row, column in product(range(0, len(rows), n_rows), range(0, n, BLOCK)):
        some = slice(row, row + n_rows) if len(scale) > 1 else slice(None)
        part = rows[row : row + n_rows, column : column + BLOCK]
        steps = buffer[: part.size].reshape(part.shape)
        np.rint(np.divide(part, scale[some], out=steps), out=steps)
        np.clip(steps, low[some], high[some], out=steps)
        np.subtract(np.multiply(steps, scale[some], out=steps), part, out=steps)
        error[row : row + n_rows] += np.vecdot(steps, steps)
    return error


CLIPPING = Clipping("mse", mse_range, needs_histogram=True, weight_share=mse_share)
