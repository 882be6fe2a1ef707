"""Learned residual of a whole network: one factor for the times of all its kernels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel
from evaluators.cost.latency.residual.format import FORMAT, VERSION
from evaluators.devices.kinds import KINDS

if TYPE_CHECKING:
    import xgboost

Array = NDArray[np.float64]
FEATURES: tuple[str, ...] = (
    *(f"share_of_time.{kind}" for kind in KINDS),
    *(f"share_of_kernels.{kind}" for kind in KINDS),
    "log_macs",
    "log_bytes",
    "log_kernels",
    "log_macs_a_byte",
    "log_largest_kernel",
)
# Few, shallow trees: there are tens of networks to learn from, not thousands.
_TREES = {"max_depth": 3, "eta": 0.1, "lambda": 1.0, "min_child_weight": 3, "subsample": 0.8, "nthread": 1}
_ROUNDS = 80
_LARGEST_FACTOR = (
    4.0  # limit of the correction; a larger one means that the network is unlike all measured ones
)


@dataclass(frozen=True)
class NetworkResidual:
    """Multiplies the times of a network's kernels by exp(boosted trees of `network_features`).

    Attributes:
        booster: XGBoost's JSON model (Chen, Guestrin 2016, "XGBoost: A Scalable Tree Boosting System", KDD).
        features: Names of its inputs.
    """

    booster: Mapping[str, Any]
    features: tuple[str, ...] = FEATURES

    @cached_property
    def _model(self) -> "xgboost.Booster":
        return booster_of(self.booster)

    @classmethod
    def trained(cls, features: Array, log_ratio: Array, seed: int) -> "NetworkResidual":
        """Trains the residual on measured networks.

        Args:
            features: `network_features` of each network, `(n, len(FEATURES))`.
            log_ratio: Natural logarithm of measured over modelled latency, `(n,)`.
            seed: Seed of the row subsampling for each tree.
        """
        return cls(boosted(features, log_ratio, seed))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "NetworkResidual":
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: The data are damaged, or for other features.
        """
        features = tuple(str(name) for name in data["features"])
        if features != FEATURES:
            raise ValueError("features differ from those of this version; fit the profile again")
        if not isinstance(data["booster"], Mapping):
            raise TypeError("booster must be a JSON object")
        residual = cls(data["booster"], features)
        residual.factor((), np.zeros(0))  # a damaged model raises here, not during the search
        return residual

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the JSON file that `Device.residual` names."""
        return {
            FORMAT: VERSION,
            "kind": "network",
            "features": list(self.features),
            "booster": dict(self.booster),
        }

    def write(self, path: Path) -> None:
        """Writes the JSON file that `Device.residual` names."""
        path.write_text(json.dumps(self.to_json()), encoding="utf-8")

    def factor(self, kernels: Sequence[Kernel], kernel_ms: Array) -> float:
        """Returns the factor on the modelled latency of one network, 1/4 to 4."""
        features = network_features(kernels, kernel_ms)[None]
        log_factor = float(self._model.inplace_predict(features)[0])
        return float(np.exp(np.clip(log_factor, -np.log(_LARGEST_FACTOR), np.log(_LARGEST_FACTOR))))

    def corrected_ms(self, kernels: Sequence[Kernel], kernel_ms: Array) -> Array:
        """Returns the times, `(n_kernels,)` ms, all multiplied by one factor; see `Residual`."""
        return kernel_ms * self.factor(kernels, kernel_ms) if len(kernels) else kernel_ms


def network_features(kernels: Sequence[Kernel], kernel_ms: Array) -> Array:
    """Returns the features of one network, `(len(FEATURES),)`.

    Args:
        kernels: Its kernels.
        kernel_ms: Their modelled times in ms, `(n_kernels,)`.
    """
    kinds = np.array([KINDS.index(kernel.kind) for kernel in kernels], int)
    macs = np.array([kernel.macs for kernel in kernels], float)
    n_bytes = sum(kernel.input_bytes + kernel.output_bytes + kernel.weight_bytes for kernel in kernels)
    time = np.bincount(kinds, kernel_ms, len(KINDS)) / max(float(kernel_ms.sum()), 1e-12)
    number = np.bincount(kinds, minlength=len(KINDS)) / max(len(kernels), 1)
    total = float(macs.sum())
    sizes = [total, n_bytes, len(kernels), total / max(n_bytes, 1), macs.max(initial=0.0)]
    return np.concatenate([time, number, np.log1p(np.array(sizes, float))])


def boosted(features: Array, log_ratio: Array, seed: int) -> dict[str, Any]:
    """Trains boosted trees on features `(n, d)` and log ratios `(n,)`; returns XGBoost's JSON model."""
    import xgboost

    booster = xgboost.train(
        {**_TREES, "seed": seed, "base_score": 0.0}, xgboost.DMatrix(features, label=log_ratio), _ROUNDS
    )
    model: dict[str, Any] = json.loads(booster.save_raw("json").decode())
    return model


def booster_of(model: Mapping[str, Any]) -> "xgboost.Booster":
    """Loads XGBoost's JSON model, as `boosted` returns it.

    Raises:
        ValueError: XGBoost cannot read the model.
    """
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(json.dumps(model).encode()))
    except xgboost.core.XGBoostError as error:
        raise ValueError("booster is not an XGBoost model") from error
    return booster
