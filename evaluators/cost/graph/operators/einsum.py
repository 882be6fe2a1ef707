"""Multiply-accumulates of an Einsum."""

import math
from collections.abc import Sequence


def einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Returns the multiply-accumulates of an Einsum whose operands are contracted from left to right.

    Two operands cost the product of their axes, less those that only one has and nobody needs (they are summed
    away before). Where no axis of both is summed over (transposes, outer and element-wise products) it is none, as
    for Mul.

    Args:
        equation: ONNX's and numpy's `ij,jk->ik`, with or without ellipses and `->`.
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
    total, found = 0, set(terms[0])
    for position, term in enumerate(terms[1:], start=2):
        needed, both = kept.union(*terms[position:]), found & set(term)
        found = (found | set(term)) & needed
        if both - needed:
            total += math.prod(sizes[label] for label in both | found)
    return total


def _labels(term: str, rank: int) -> list[str]:
    """One label for each axis; those of an ellipsis are numbered from the right, as they are broadcast."""
    before, dots, after = term.partition("...")
    n_dots = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"...{n}" for n in range(n_dots, 0, -1)), *after]
