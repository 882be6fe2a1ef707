"""Weights that make up for the errors of the layers before, before they are rounded.

A layer of the quantized network reads `x` instead of the float network's `x + d`, and an Add behind it adds `s` instead of `s + r`. What the layer should
yield is `t = W (x + d) + r`, and the weights whose outputs come closest to it are, by ridge regression,

    V = W + (W E[d x^T] + E[r x^T]) (E[x x^T] + l I)^-1

The first term is the asymmetric calibration of GPTAQ (Li et al. 2025, arXiv 2504.02692, equation 6) and Qronos (Zhang et al. 2025, arXiv 2505.11695); the second
lets a layer that ends a residual block repair what the shortcut carries. How large `l` is, or whether there is a correction at all, is what
predicts one half of the examples from the other half best, so that few examples are not fitted too closely.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spaces.models.onnx.torch_graph.graph import Values
from spaces.quantization.rounding.matrix_form import MatrixForm
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    from torch import Tensor

RIDGES = (0.01, 0.1, 1.0, 10.0)  # times the mean second moment of an input


@dataclass(frozen=True)
class Moments:
    """Sums over the calibration examples, for each half of them: of the quantized network's inputs `x` of a layer, and of what it lacks.

    Attributes:
        halves: `x x^T`, `(n_groups, n_in, n_in)`, of either half.
        lacking: `d x^T`, same shape.
        shortcut: `r x^T`, `(n_groups, n_out, n_in)`; 0 without an Add.
    """

    halves: "tuple[Tensor, Tensor]"
    lacking: "tuple[Tensor, Tensor]"
    shortcut: tuple[Any, Any]

    @property
    def inputs(self) -> "Tensor":
        """`x x^T` of all examples."""
        return self.halves[0] + self.halves[1]

    @classmethod
    def of(cls, unit: Unit, form: MatrixForm, with_errors: bool = True) -> "Moments":
        """Returns the moments of a layer of a part; without errors only those of its inputs."""
        shortcut = _shortcut(unit, form) if with_errors else None
        sums: list[list[Any]] = [[0.0, 0.0] for _ in range(3)]
        for batch, floats in zip(unit.batches(unit.inputs), unit.batches(unit.float_inputs), strict=True):
            x = form.read(unit, batch)
            lacking = form.read_in_float(unit, floats) - x if with_errors else None
            error = None if shortcut is None else _shortcut_error(unit, shortcut, batch, floats)
            for half in (0, 1):
                if not len(x[half::2]):
                    continue
                columns = form.columns(x[half::2])
                parts = (
                    columns,
                    None if lacking is None else form.columns(lacking[half::2]),
                    None if error is None else form.outputs(error[half::2]),
                )
                for total, part in zip(sums, parts, strict=True):
                    if part is not None:
                        total[half] = total[half] + part @ columns.transpose(1, 2)
        return cls(*((total[0], total[1]) for total in sums))


def compensated(rows: "Tensor", moments: Moments) -> "Tensor":
    """Returns weights `(n_groups, n_out, n_in)` whose outputs in the quantized network come closest to what they should be."""
    weights = rows.double()
    inputs = [half.double() for half in moments.halves]
    lacking = [
        weights @ d.double() + r for d, r in zip(moments.lacking, moments.shortcut, strict=True)
    ]  # in the outputs, times the inputs

    def held_out(ridge: float) -> float:
        """Returns how far corrections by either half change the other half's error."""
        changes = (_change(inputs[i], lacking[i], ridge) for i in (0, 1))
        return sum(_error(c, inputs[1 - i], lacking[1 - i]) for i, c in enumerate(changes))

    errors = {held_out(ridge): ridge for ridge in RIDGES}
    if not min(errors) < 0:
        return rows
    change = _change(inputs[0] + inputs[1], lacking[0] + lacking[1], errors[min(errors)])
    return (weights + change).to(rows.dtype)


def _change(inputs: "Tensor", lacking: "Tensor", ridge: float) -> "Tensor":
    """Returns `V - W`."""
    import torch

    diagonal = inputs.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True).clamp_min(1e-12)
    damped = inputs + torch.diag_embed((ridge * mean).expand_as(diagonal))
    return torch.linalg.solve(damped, lacking.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


def _error(change: "Tensor", inputs: "Tensor", lacking: "Tensor") -> float:
    """Returns by how much a change of the weights changes the squared error of the outputs."""
    return float(((change @ inputs) * change).sum() - 2 * (change * lacking).sum())


def _shortcut(unit: Unit, form: MatrixForm) -> tuple[int, int] | None:
    """Returns the position of the Add that reads the layer's output in the part, and that of its other operand, which the part reads; None without."""
    name, nodes = form.node.outputs[0], unit.segment.nodes
    while True:
        readers = [(i, node) for i, node in enumerate(nodes) if name in node.inputs]
        if len(readers) != 1 or readers[0][1].op_type != "Add" or name in unit.segment.outputs:
            return None
        at, node = readers[0]
        other = 1 - list(node.inputs).index(name)
        if node.inputs[other] in unit.inputs and node.inputs[other] in unit.float_inputs:
            return at, other
        if node.inputs[other] not in unit.graph.constants:
            return None
        name = node.outputs[0]  # a bias


def _shortcut_error(unit: Unit, shortcut: tuple[int, int], batch: Values, floats: Values) -> "Tensor":
    """Returns what the other operand of an Add lacks in the quantized network."""
    node = unit.segment.nodes[shortcut[0]]
    name, grid = node.inputs[shortcut[1]], unit.quantized.reads(node, shortcut[1])
    return floats[name] - (batch[name] if grid is None else grid.quantized(batch[name]))
