"""Weights rounded with feedback, one layer at a time: what a layer loses at a width if its rounding is better than the nearest."""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.models.layers import Layer
from spaces.models.onnx.torch_graph.graph import TorchGraph, Values
from spaces.quantization.plan.source import Source
from spaces.quantization.rounding.grids import TorchGrid
from spaces.quantization.rounding.matrix_form import MatrixForm
from spaces.quantization.schemes.scheme import Grid
from spaces.stages.stage import StageContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH = 32  # examples that run at once


class Feedback:
    """GPTQ (see `rounding/gptq.py`) with the second moments of the inputs in the float network.

    Args:
        source: The float model.
        context: Calibration data and accelerator.
        n_examples: Calibration examples.
    """

    def __init__(self, source: Source, context: StageContext, n_examples: int) -> None:
        self._source, self._context, self._n_examples = source, context, n_examples

    def rounded(self, layer: str, grid: Grid) -> NDArray[np.float32]:
        """Returns a layer's weight on a grid of that width whose scale may differ; to nearest if the layer is no matrix product."""
        import torch

        from spaces.quantization.rounding.gptq import with_feedback
        from spaces.quantization.rounding.grids import weighted_scale

        weight = self._source.weights[layer]
        if layer not in self._moments:
            return grid.dequantized(weight)
        form, moments = self._moments[layer]
        rows = form.rows(torch.tensor(weight, device=moments.device))
        given = form.grid(TorchGrid.of(grid, weight.ndim, moments.device))
        fitted = given.with_scale(weighted_scale(rows, moments.diagonal(dim1=1, dim2=2), given))
        found: NDArray[np.float32] = form.weight(with_feedback(rows, moments, fitted)).cpu().numpy()
        return found

    @cached_property
    def _moments(self) -> "dict[str, tuple[MatrixForm, Tensor]]":
        """Returns form and second moments of each layer that is a product of matrices."""
        import torch

        found: dict[str, tuple[MatrixForm, Tensor]] = {}
        try:
            forms = self._forms()
            with torch.no_grad():
                for values in self._values():
                    for name, form in forms.items():
                        products = form.products(values[form.node.inputs[0]])
                        found[name] = (form, found[name][1] + products if name in found else products)
        except (RuntimeError, NotImplementedError, KeyError) as error:
            raise StageError(
                f"allocator.grid.rounding=gptq: the network cannot be run by torch ({error}); use rounding: nearest"
            ) from error
        return found

    @cached_property
    def _device(self) -> "torch.device":
        from spaces.models.torch.accelerator import device_of

        return device_of(self._context.accelerator)

    @cached_property
    def _graph(self) -> TorchGraph:
        return TorchGraph(self._source.artifact.proto(), self._device)

    def _forms(self) -> dict[str, MatrixForm]:
        first: dict[str, Layer] = {}
        for layer in self._source.network.layers:
            first.setdefault(layer.name, layer)
        forms = {name: MatrixForm.of(self._graph.nodes, layer) for name, layer in first.items()}
        return {name: form for name, form in forms.items() if form is not None}

    def _values(self) -> Iterator[Values]:
        """Yields all values of the float network, batch by batch."""
        from spaces.quantization.rounding.walk import examples_of

        inputs = examples_of(self._source, self._context, self._n_examples, self._device)
        for start in range(0, len(next(iter(inputs.values()))), BATCH):
            batch = {name: value[start : start + BATCH] for name, value in inputs.items()}
            yield batch | self._graph.run(self._graph.nodes, batch)
