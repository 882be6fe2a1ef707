"""Peak memory of a network on a device: execution order, in-place kernels, placement, patches."""

from evaluators.cost.memory.patches import PatchStage
from evaluators.cost.memory.plan import MemoryPlan, peak_activation_bytes, plan_memory, runtime_bytes
from evaluators.cost.memory.timeline import Step

__all__ = ["MemoryPlan", "PatchStage", "Step", "peak_activation_bytes", "plan_memory", "runtime_bytes"]
