"""Costs of very many candidates that share one file's structure and differ in bit widths.

A kernel has few versions, one for each combination of widths that it meets: what it costs is worked out once for each
version and device and then looked up. So any formula that looks at one kernel at a time is welcome here.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.cost.batch.candidates import Candidates
from evaluators.cost.graph import Kernel, OpGraph
from evaluators.cost.graph.bits import WIDTHS, BitWidths
from evaluators.devices.device import Device
from spaces.errors import EvaluationError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Costs = dict[str, dict[str, Ints | Floats]]
KernelCost = Callable[[Kernel, Device], float]


class Skeleton:
    """The structure that candidates share.

    Args:
        graph: The graph of one of the quantized files, as `op_graph` gives it. A device whose runtime fuses by other
            rules (`Device.fusion`) wants a skeleton of its own.

    Attributes:
        graph: The graph.
        layers: The quantized weights, in graph order: what the columns of bit widths mean.
    """

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self._widths = BitWidths(graph)
        self.layers = self._widths.layers

    def costs(
        self,
        weight_bits: ArrayLike,
        activation_bits: ArrayLike,
        devices: Mapping[str, Device],
        kernel_costs: Mapping[str, KernelCost] | None = None,
        *,
        plan_each: bool = False,
    ) -> Costs:
        """Returns device to cost to its values for every candidate, `(n_candidates,)` each.

        `latency_ms` and `energy_uj` are float64, and NaN where the device cannot run a candidate;
        `peak_activation_bytes`, `peak_sram_bytes`, `weight_bytes` and `flash_bytes` are int64. A cost that the profile
        has no figures for is absent, and so are latency and energy of devices with a fabric.

        The values are those of `with_bits` under `roofline`, `energy_uj` and `plan_memory`, except that,
        unless `plan_each`, all candidates run in the order that is best for `graph`, a peak is what is live (what an
        arena wastes between its buffers is not in it), and deployments that run patches have none.

        Args:
            weight_bits: `(n_candidates, n_layers)`, of each of `layers`.
            activation_bits: `(n_candidates, n_layers)`, of what each of `layers` reads; see `BitWidths`.
            devices: The devices by name.
            kernel_costs: Further costs by name, each the sum of what its function returns for every kernel.
            plan_each: Whether memory is planned anew for every distinct set of activation widths (and of weight
                widths, where weights are streamed). A plan takes milliseconds.

        Raises:
            EvaluationError: A shape is wrong, or a width is none.
        """
        weights = self._checked(weight_bits, "weight_bits")
        activations = self._checked(activation_bits, "activation_bits")
        if len(weights) != len(activations):
            raise EvaluationError(
                f"weight_bits has {len(weights)} candidates, activation_bits has {len(activations)}"
            )
        candidates = Candidates(self._widths, weights, activations)
        found: Costs = {name: candidates.costs(device, plan_each) for name, device in devices.items()}
        for cost, function in (kernel_costs or {}).items():
            for name, device in devices.items():
                found[name][cost] = candidates.total([function(k, device) for k in candidates.kernels])
        return found

    def _checked(self, given: ArrayLike, what: str) -> Ints:
        bits = np.asarray(given)
        if bits.ndim != 2 or bits.shape[1] != len(self.layers):
            raise EvaluationError(
                f"{what} has the shape {bits.shape}; it must be (n_candidates, {len(self.layers)}), a column for each "
                "quantized layer"
            )
        wrong = bits[~np.isin(bits, WIDTHS)]
        if wrong.size:
            raise EvaluationError(f"{what} holds {wrong[0]}; bit widths are {WIDTHS[0]} to {WIDTHS[-1]}")
        return bits.astype(np.int64)
