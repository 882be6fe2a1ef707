"""Learned residual of each kernel's time: a linear formula per operator, then boosted trees.

The profile's own figures are one throughput per kernel class. Here every operator of the runtime
(`nchwc.Conv`, `QLinearConv.nhwc.u8s8`, ...) has a formula with non-negative coefficients, and trees predict
the logarithm of measured over formula time from sizes, channels and windows (as nn-Meter's kernel predictors
do: Zhang et al. 2021, MobiSys).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel
from evaluators.cost.latency.residual.format import FORMAT, VERSION
from evaluators.cost.latency.residual.kernel_features import FEATURES, TERMS, formula_terms, kernel_features

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float64]
Operator = tuple[str, str]  # a kernel's `op` and class

LEAST_MS = 5e-5
_MOST_FACTOR = 10.0  # limit of the ratio between a formula's time and the profile's
_MOST_LOG = 1.5  # limit of the trees' correction, as absolute natural logarithm of the factor


class KernelResidual:
    """Implements `Residual` per kernel; times of operators without a formula stay unchanged.

    Args:
        formulas: Coefficients of `kernel_features.TERMS` in ms, by operator.
        boosted: Operators that the trees correct as well, in the order of their one-hot columns.
        trees: A model on `kernel_features.FEATURES` and one one-hot column per operator of `boosted`; None
            for formulas only.
    """

    def __init__(
        self,
        formulas: Mapping[Operator, Sequence[float] | Floats],
        boosted: Sequence[Operator] = (),
        trees: "xgboost.Booster | None" = None,
    ) -> None:
        self.formulas = {operator: np.asarray(c, np.float64) for operator, c in formulas.items()}
        self.boosted = {operator: i for i, operator in enumerate(boosted)}
        self.trees = trees
        if trees is not None:
            trees.set_param({"nthread": 1})

    def corrected_ms(self, kernels: Sequence[Kernel], kernel_ms: Floats) -> Floats:
        """Returns each kernel's corrected time in ms, `(n_kernels,)`; see `Residual`."""
        by_formula = self.by_formula_ms(kernels, kernel_ms)
        which = np.array([self.boosted.get((k.op, k.kind), -1) for k in kernels], np.int64)
        if self.trees is None or not (which >= 0).any():
            return by_formula
        inputs = self.inputs(kernels, by_formula)[which >= 0]
        logs = np.clip(self.trees.inplace_predict(inputs), -_MOST_LOG, _MOST_LOG)
        corrected = by_formula.copy()
        corrected[which >= 0] *= np.exp(logs.astype(np.float64))
        return corrected

    def by_formula_ms(self, kernels: Sequence[Kernel], kernel_ms: Floats) -> Floats:
        """Returns the times by the operators' formulas alone in ms, `(n_kernels,)`."""
        terms = formula_terms(kernels)
        by_formula = np.array(kernel_ms, np.float64)
        for i, kernel in enumerate(kernels):
            coefficients = self.formulas.get((kernel.op, kernel.kind))
            if coefficients is not None:
                by_formula[i] = max(float(terms[i] @ coefficients), LEAST_MS)
        # A formula fitted to few kernels can extrapolate badly; the profile's figures bound its error.
        known = kernel_ms > 0
        by_formula[known] = np.clip(
            by_formula[known], kernel_ms[known] / _MOST_FACTOR, kernel_ms[known] * _MOST_FACTOR
        )
        return by_formula

    def inputs(self, kernels: Sequence[Kernel], by_formula_ms: Floats) -> NDArray[np.float32]:
        """Returns the trees' inputs, `(n_kernels, n_features + n_boosted)` float32."""
        operators = np.zeros((len(kernels), len(self.boosted)), np.float32)
        for i, kernel in enumerate(kernels):
            column = self.boosted.get((kernel.op, kernel.kind))
            if column is not None:
                operators[i, column] = 1
        return np.concatenate([kernel_features(kernels, by_formula_ms), operators], axis=1)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the residual's JSON file."""
        return {
            FORMAT: VERSION,
            "kind": "kernel",
            "terms": list(TERMS),
            "features": list(FEATURES),
            "formulas": [
                {"op": op, "class": kind, "ms": [float(f"{c:.6g}") for c in coefficients]}
                for (op, kind), coefficients in self.formulas.items()
            ],
            "boosted": [list(operator) for operator in self.boosted],
            "trees": None if self.trees is None else json.loads(bytes(self.trees.save_raw("json"))),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "KernelResidual":
        """Reads what `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: An entry is missing or of another version.
        """
        if tuple(data["terms"]) != TERMS or tuple(data["features"]) != FEATURES:
            raise ValueError("the file was written by another version: run paredown-profile again")
        formulas = {(str(f["op"]), str(f["class"])): [float(c) for c in f["ms"]] for f in data["formulas"]}
        if any(len(c) != len(TERMS) for c in formulas.values()):
            raise ValueError(f"a formula needs {len(TERMS)} coefficients")
        boosted = [(str(op), str(kind)) for op, kind in data["boosted"]]
        return cls(formulas, boosted, None if data["trees"] is None else _booster(data["trees"]))


def _booster(trees: Mapping[str, Any]) -> "xgboost.Booster":
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(json.dumps(trees), "utf-8"))
    except xgboost.core.XGBoostError as error:
        raise ValueError(f"xgboost cannot read the trees: {str(error).strip().splitlines()[0]}") from error
    return booster
