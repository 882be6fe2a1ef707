"""Energy: by power, by operation, and measured."""

from evaluators.cost.energy.energy import energy_uj, op_energy_uj

__all__ = ["energy_uj", "op_energy_uj"]
