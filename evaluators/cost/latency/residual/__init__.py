"""Learned residuals, which correct the kernel times of the roofline model."""

from evaluators.cost.latency.residual.load import Residual, load_residual

__all__ = ["Residual", "load_residual"]
