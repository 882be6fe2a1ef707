"""Fits device profiles to measured latencies and energies of networks."""

from evaluators.cost.fit.costs import MeasuredNetwork
from evaluators.cost.fit.profile import FittedProfile, fit_profile

__all__ = ["FittedProfile", "MeasuredNetwork", "fit_profile"]
