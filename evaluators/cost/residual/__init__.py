"""Learned corrections of the roofline."""

from evaluators.cost.residual.load import Residual, load_residual

__all__ = ["Residual", "load_residual"]
