"""Gradient-boosted regression trees as Quantune uses them (Lee et al., arXiv 2202.05048, section 3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BoostedTrees:
    """Settings of XGBoost's `reg:squarederror`; the defaults are those of the authors' published code.

    Attributes:
        n_rounds: Number of trees.
        eta: Shrinkage of each tree.
        gamma: Minimum loss reduction of a split.
        max_depth: Maximum number of splits from root to leaf.
    """

    n_rounds: int = 200
    eta: float = 0.15
    gamma: float = 3.0
    max_depth: int = 6

    def predict(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.float64],
        pool: NDArray[np.float32],
        seed: int = 0,
    ) -> NDArray[np.float64]:
        """Trains from scratch and predicts.

        Args:
            features: `(n, n_features)`, of the training rows; NaN where unknown.
            labels: `(n,)`, finite.
            pool: `(n_pool, n_features)`, of the candidates to predict.
            seed: Seed of XGBoost.

        Returns:
            `(n_pool,)`; constant where there are fewer than two labels or all are equal.
        """
        if len(labels) < 2 or np.ptp(labels) == 0:
            return np.full(len(pool), labels.mean() if len(labels) else 0.0)
        import xgboost

        settings = {
            "objective": "reg:squarederror",
            "eta": self.eta,
            "gamma": self.gamma,
            "max_depth": self.max_depth,
            "seed": seed,
            "nthread": 1,  # with a few hundred rows, more threads only wait for each other
            "verbosity": 0,
        }
        model = xgboost.train(settings, xgboost.DMatrix(features, label=labels), self.n_rounds)
        return np.asarray(model.predict(xgboost.DMatrix(pool)), dtype=np.float64)
