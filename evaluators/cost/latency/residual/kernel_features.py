"""Features of kernels that the learned residual predicts their times from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Geometry, Kernel

_NONE = Geometry(1, 1)
# A network that fits into a cache stays there between runs; of a larger one a growing share is evicted. The
# fit decides how much each cache size matters.
_CACHES_BYTES = (2.0**20, 2.0**22)
# A matrix kernel computes whole blocks, so the share of them that is filled matters more than the size.
_OUT_BLOCKS = (8, 16, 32, 48, 64)
_INNER_BLOCKS = (4, 16, 64)
_ROW_BLOCKS = (4, 6, 12)
# The features of the whole network are clipped to these: beyond them the time no longer depends on it.
_TOUCHED_BYTES = (2.0**13, 2.0**22)
_KERNELS = 64
TERMS = (
    "macs",
    "input_bytes",
    "output_bytes",
    "weight_bytes",
    "weight_bytes_beyond_1_mib",
    "weight_bytes_beyond_4_mib",
    "output_bytes_beyond_1_mib",
    "output_bytes_beyond_4_mib",
    "elements",
    "window_positions",
    "output_rows",
    "output_positions",
    "unfolded_elements",
    "macs_in_blocks_of_16",
    "kernels",
)
"""Terms of an operator's formula; each has a coefficient in ms per unit."""
FEATURES = (
    "log_macs",
    "log_input_bytes",
    "log_output_bytes",
    "log_weight_bytes",
    "log_weight_bytes_beyond_1_mib",
    "log_weight_bytes_beyond_4_mib",
    "log_elements",
    "log_in_channels",
    "log_out_channels",
    "log_group_channels",
    "log_groups",
    "log_in_height",
    "log_in_width",
    "log_out_height",
    "log_out_width",
    "log_positions",
    "log_macs_an_element",
    "log_macs_a_byte",
    "log_formula",
    "window_height",
    "window_width",
    "stride_height",
    "stride_width",
    "in_channels_mod_16",
    "out_channels_mod_16",
    "out_width_mod_8",
    "positions_mod_16",
    *(f"out_channels_filled_to_{n}" for n in _OUT_BLOCKS),
    *(f"inner_filled_to_{n}" for n in _INNER_BLOCKS),
    *(f"positions_filled_to_{n}" for n in _ROW_BLOCKS),
    "log_inner",
    "n_inputs",
    "n_constants",
    "share_beyond_1_mib",
    "share_beyond_4_mib",
    "log_touched_bytes",
    "log_kernels",
)
"""Inputs of the trees besides the one-hot operator; logarithms are to base 2."""
_RAW = 18


def formula_terms(kernels: Sequence[Kernel]) -> NDArray[np.float64]:
    """Returns the terms of the operators' formulas, `(n_kernels, len(TERMS))`.

    Args:
        kernels: All kernels of one network, because its total size decides what stays in the caches.
    """
    raw = _raw(kernels)
    macs, read, written, weights, elements = raw.T[:5]
    h_out, w_out, h_window, w_window = raw.T[10:14]
    window_positions = h_out * w_out * h_window * w_window
    beyond = _shares_beyond(raw)
    columns = [macs, read, written, weights, *(weights * s for s in beyond), *(written * s for s in beyond)]
    c_out, positions = raw[:, 6], h_out * w_out
    unfolded = np.where(macs > 0, macs / np.maximum(c_out, 1), 0)  # elements of the im2col matrix
    blocked = unfolded * np.ceil(c_out / 16) * 16
    columns += [elements, window_positions, h_out, positions, unfolded, blocked, np.ones(len(kernels))]
    return np.stack(columns, axis=1)


def kernel_features(kernels: Sequence[Kernel], by_formula_ms: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the trees' features, `(n_kernels, len(FEATURES))`.

    Args:
        kernels: All kernels of one network.
        by_formula_ms: Their times by the formulas in ms, `(n_kernels,)`.
    """
    raw = _raw(kernels)
    macs, read, written, weights, elements, c_in, c_out, groups, h_in, w_in, h_out, w_out = raw.T[:12]
    positions = h_out * w_out
    beyond = _shares_beyond(raw)
    logs = [
        macs,
        read,
        written,
        weights,
        weights * beyond[0],
        weights * beyond[1],
        elements,
        c_in,
        c_out,
        c_in / groups,
        groups,
    ]
    logs += [h_in, w_in, h_out, w_out, positions, macs / np.maximum(elements, 1)]
    logs += [macs / np.maximum(read + written + weights, 1)]
    columns = [np.log2(1 + column) for column in logs] + [np.log2(np.maximum(by_formula_ms, 1e-6))]
    columns += [*raw.T[12:16], c_in % 16, c_out % 16, w_out % 8, positions % 16]
    inner = c_in / groups * raw.T[12] * raw.T[13]
    columns += [_filled(c_out, n) for n in _OUT_BLOCKS] + [_filled(inner, n) for n in _INNER_BLOCKS]
    columns += [_filled(positions, n) for n in _ROW_BLOCKS]
    columns += [np.log2(1 + inner), *raw.T[16:18]]
    # A small kernel takes several times as long in a large network, because its code and buffers are evicted
    # meanwhile.
    of_network = (
        *beyond,
        np.log2(np.clip(_touched(raw), *_TOUCHED_BYTES)),
        np.log2(min(len(kernels), _KERNELS)),
    )
    columns += [np.full(len(kernels), value) for value in of_network]
    return np.stack(columns, axis=1).astype(np.float32)


def _filled(counts: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Returns the share of the computed blocks that is filled, `(n,)`."""
    return np.asarray(counts / (np.ceil(np.maximum(counts, 1) / block) * block))


def _shares_beyond(raw: NDArray[np.float64]) -> list[float]:
    """Returns, for each cache size, the share of the bytes that a run touches that does not fit."""
    touched = _touched(raw)
    return [max(0.0, 1 - cache / max(touched, 1)) for cache in _CACHES_BYTES]


def _touched(raw: NDArray[np.float64]) -> float:
    """Returns the bytes that a run touches: all weights, plus inputs and outputs of the largest kernel."""
    return float(raw[:, 3].sum() + (raw[:, 1] + raw[:, 2]).max(initial=0))


def _raw(kernels: Sequence[Kernel]) -> NDArray[np.float64]:
    return np.array([_row(kernel) for kernel in kernels], np.float64).reshape(len(kernels), _RAW)


def _row(kernel: Kernel) -> tuple[float, ...]:
    g = kernel.geometry or _NONE
    return (
        *(kernel.macs, kernel.input_bytes, kernel.output_bytes, kernel.weight_bytes, kernel.elements),
        *(g.in_channels, g.out_channels, max(g.groups, 1), *g.in_size, *g.out_size, *g.window, *g.stride),
        *(len(kernel.inputs), len(kernel.constants)),
    )
