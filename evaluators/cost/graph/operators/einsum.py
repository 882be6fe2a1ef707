"""Multiply-accumulates of an Einsum."""

import math
from collections.abc import Sequence


def einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Returns the multiply-accumulates of an Einsum whose operands are contracted from left to right.

    Contracting two operands takes the product of the sizes of their axes, without those that occur in one
    operand and in no later term (they are summed out first). A step that sums over no shared axis (transpose,
    outer or element-wise product) counts as 0, as Mul does.

    Args:
        equation: Equation in the syntax of ONNX and numpy, e.g. `ij,jk->ik`, with or without ellipses and
            `->`.
        shapes: Shapes of the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_labels(term, len(shape)) for term, shape in zip(left.split(","), shapes, strict=True)]
    every = [label for term in terms for label in term]
    if arrow:
        kept = {label for label in every if label in right or ("..." in right and label.startswith("..."))}
    else:
        kept = {label for label in every if every.count(label) == 1 or label.startswith("...")}
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    total, labels = 0, set(terms[0])
    for position, term in enumerate(terms[1:], start=2):
        used_later, both = kept.union(*terms[position:]), labels & set(term)
        labels = (labels | set(term)) & used_later
        if both - used_later:
            total += math.prod(sizes[label] for label in both | labels)
    return total


def _labels(term: str, rank: int) -> list[str]:
    """Returns one label per axis; those of an ellipsis are numbered from the right, as they broadcast."""
    before, dots, after = term.partition("...")
    n_dots = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"...{n}" for n in range(n_dots, 0, -1)), *after]
