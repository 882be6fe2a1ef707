"""Learned corrections of the roofline."""

from evaluators.cost.latency.residual.load import Residual, load_residual

__all__ = ["Residual", "load_residual"]
