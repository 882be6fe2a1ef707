"""Energy of one inference: power times latency, sums of per-operation energies, or measured by counters."""

from evaluators.cost.energy.energy import energy_uj, op_energy_uj

__all__ = ["energy_uj", "op_energy_uj"]
