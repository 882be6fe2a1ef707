"""Loads learned residuals of the roofline model from the file that a device's profile names."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel
from evaluators.cost.latency.residual.format import FORMAT, VERSION
from spaces.errors import InputError


class Residual(Protocol):
    """Corrects the modelled times of the kernels of one network."""

    def corrected_ms(self, kernels: Sequence[Kernel], kernel_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the corrected times.

        Args:
            kernels: All kernels of one network, in the order of its graph.
            kernel_ms: Their modelled times in ms, `(n_kernels,)`.

        Returns:
            Their corrected times in ms, `(n_kernels,)`.
        """


def load_residual(path: str | Path) -> Residual:
    """Reads a residual; unchanged files are cached by modification time.

    Raises:
        InputError: The file is missing, damaged, or of another format or version.
    """
    file = Path(path).expanduser()
    try:
        changed_ns = file.stat().st_mtime_ns
    except OSError as error:
        raise InputError(
            f"{file}: there is no such residual, but the device's profile names it; write both again with "
            "paredown-profile, or correct device.<name>.residual"
        ) from error
    return _read(str(file.resolve()), changed_ns)


@lru_cache(maxsize=16)
def _read(path: str, _changed_ns: int) -> Residual:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, Mapping) or data.get(FORMAT) != VERSION:
        raise InputError(f"{path}: expected a JSON object with {FORMAT!r}: {VERSION}")
    try:
        return _of_kind(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the residual is damaged: {type(error).__name__}: {error}") from error


def _of_kind(data: Mapping[str, Any]) -> Residual:
    kind = data.get("kind")
    if kind == "kernel":
        from evaluators.cost.latency.residual.kernel import KernelResidual

        return KernelResidual.from_json(data)
    if kind == "network":
        from evaluators.cost.latency.residual.network import NetworkResidual

        return NetworkResidual.from_json(data)
    raise ValueError(f"kind must be 'kernel' or 'network', but is {kind!r}")
