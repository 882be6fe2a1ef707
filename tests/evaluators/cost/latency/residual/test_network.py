"""Tests of learned residuals of whole networks, and of latency models on counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.cost.fit.features import fit_features, non_negative
from evaluators.cost.graph import Kernel
from evaluators.cost.latency.residual import load_residual
from evaluators.cost.latency.residual.network import FEATURES, NetworkResidual, network_features
from spaces.errors import InputError


def kernels(n: int, kind: Any = "conv", macs: int = 1000) -> list[Kernel]:
    return [Kernel("k", "Conv", kind, "int8", macs, 10, ("x",), ("y",), 20, 20) for _ in range(n)]


def trained(factor: float = 2.0) -> NetworkResidual:
    """A residual trained so that networks of more than 10 kernels take `factor` times the modelled time."""
    nets = [kernels(n) for n in range(1, 21)] * 3
    features = np.array([network_features(net, np.ones(len(net))) for net in nets])
    return NetworkResidual.trained(
        features, np.array([np.log(factor) * (len(net) > 10) for net in nets]), seed=0
    )


def test_all_kernels_are_multiplied_by_one_factor() -> None:
    times = np.linspace(0.1, 2.0, 15)
    corrected = trained().corrected_ms(kernels(15), times)
    assert corrected / times == pytest.approx(2.0, rel=0.1)
    assert trained().corrected_ms(kernels(4), times[:4]) / times[:4] == pytest.approx(1.0, rel=0.1)


def test_a_network_without_kernels_takes_no_time() -> None:
    assert trained().corrected_ms([], np.zeros(0)).shape == (0,)


def test_a_correction_stays_within_bounds() -> None:
    assert trained(1000.0).factor(kernels(20), np.ones(20)) == pytest.approx(4.0)
    assert trained(0.001).factor(kernels(20), np.ones(20)) == pytest.approx(0.25)


def test_the_file_round_trips(tmp_path: Path) -> None:
    residual, path = trained(), tmp_path / "r.json"
    residual.write(path)
    read = load_residual(path)
    times = np.linspace(0.1, 1, 12)
    assert read.corrected_ms(kernels(12), times) == pytest.approx(residual.corrected_ms(kernels(12), times))


@pytest.mark.parametrize(
    "change",
    [{"features": ["a"]}, {"booster": 3}, {"booster": {"x": 1}}, {"features": None}, {"kind": "galaxy"}],
)
def test_a_damaged_file_raises(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**trained().to_json(), **change}))
    with pytest.raises(InputError, match=r"r\.json"):
        load_residual(path)


def test_features_are_finite_and_named() -> None:
    features = network_features(kernels(3, "depthwise"), np.array([1.0, 2.0, 3.0]))
    assert features.shape == (len(FEATURES),)
    assert np.isfinite(features).all()
    assert features[FEATURES.index("share_of_time.depthwise")] == pytest.approx(1.0)
    assert np.isfinite(network_features([], np.zeros(0))).all()


def test_non_negative_recovers_costs_of_any_magnitude() -> None:
    rng = np.random.default_rng(0)
    counts = np.column_stack([rng.uniform(1e6, 1e8, 50), rng.integers(1, 50, 50)])
    costs = non_negative(counts, counts @ [3e-8, 0.02] + 0.5)
    assert costs == pytest.approx([3e-8, 0.02, 0.5], rel=1e-6)
    assert (non_negative(counts, np.full(50, 2.0)) >= 0).all()


def _counts(rng: np.random.Generator, n: int = 100) -> dict[str, Any]:
    executed, kept = rng.integers(0, 5, (n, 4)).astype(float), rng.integers(0, 5, (n, 4)).astype(float)
    return {"eager": executed, "live": kept}


@pytest.mark.parametrize("truth", ["eager", "live"])
def test_the_true_feature_set_is_selected(truth: str) -> None:
    rng = np.random.default_rng(1)
    features = _counts(rng)
    latency = features[truth] @ [1.0, 2.0, 0.5, 0.1] + 1.0
    fit = fit_features(features, latency * np.exp(0.02 * rng.normal(size=100)), rng, n_folds=3)
    assert fit.counts == truth
    assert fit.correction == "none"
    assert np.abs(fit.predict(features) / latency - 1).mean() < 0.02


def test_a_correction_is_kept_if_latency_is_not_linear_in_the_counts() -> None:
    rng = np.random.default_rng(2)
    features, fresh = _counts(rng, 80), _counts(rng, 300)

    def latency(x: Any) -> Any:
        return (x["eager"].sum(axis=1) + 1) ** 2.5

    fit = fit_features(features, latency(features), rng, n_folds=3)
    assert fit.correction != "none"
    error = np.abs(fit.predict(fresh) / latency(fresh) - 1).mean()
    assert error < 0.5 * fit.errors[fit.counts, "none"]
