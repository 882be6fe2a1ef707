"""Groups of layers with losses that cannot be compared, and budgets of their own (MixDQ, arXiv 2405.17873, section 3.4).

One metric hides what another one shows: in a text-to-image network the content is judged by SSIM, the quality by SQNR.
Each group is a program of its own. How the budget is divided between two groups is swept, and the family of candidates that
results is ranked by real evaluations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from search.allocators.problem import Problem, Table, average_bits
from search.allocators.program import InfeasibleBudgetError, Solution, solve
from spaces.errors import ConfigError


def divided(average: float, n_first: int, n_second: int, ratio: float) -> tuple[float, float]:
    """Returns the average bits of two groups such that all weights together have `average`.

    Args:
        average: Bits per weight over both groups.
        n_first: Weights of the first group.
        n_second: Weights of the second group.
        ratio: The second group's average divided by the first one's.
    """
    share = n_second / n_first
    first = average * (1 + share) / (ratio * share + 1)
    return first, ratio * first


def family(
    first: Problem,
    second: Problem,
    n_weights: Mapping[str, int],
    averages: Iterable[float],
    ratios: Sequence[float],
) -> tuple[tuple[Solution, Solution], ...]:
    """Returns the solutions of both groups for every average and ratio, without repetitions.

    A division that a group cannot keep, or that gives it more than its largest width, is skipped.

    Args:
        first: The first group's problem, with its other budgets, if any.
        second: The second group's.
        n_weights: Layer to its number of weights, of both groups.
        averages: Average bits over both groups.
        ratios: The second group's average bits divided by the first one's.

    Raises:
        ConfigError: A layer is in both groups.
        InfeasibleBudgetError: No division can be kept.
    """
    both = sorted(first.losses.keys() & second.losses.keys())
    if both:
        raise ConfigError(f"allocator: {', '.join(both)} is in two groups; each layer has one metric")
    found: dict[tuple[tuple[str, int], ...], tuple[Solution, Solution]] = {}
    sizes = [sum(n_weights[layer] for layer in problem.losses) for problem in (first, second)]
    for average in averages:
        for ratio in ratios:
            limits = divided(average, sizes[0], sizes[1], ratio)
            if all(limit <= _most_bits(p) for limit, p in zip(limits, (first, second), strict=True)):
                pair = [
                    _within(p, n_weights, limit) for p, limit in zip((first, second), limits, strict=True)
                ]
                if pair[0] is not None and pair[1] is not None:
                    found.setdefault((*pair[0].widths.items(), *pair[1].widths.items()), (pair[0], pair[1]))
    if not found:
        raise InfeasibleBudgetError(
            "allocator: no ratio divides the average bits such that both groups can keep their part"
        )
    return tuple(found.values())


def protected(losses: Table, share: float) -> dict[str, int]:
    """Returns the most sensitive layers with their largest width, to be fixed.

    Args:
        losses: Layer to width to loss; a layer's sensitivity is its loss at its smallest width.
        share: Share of the layers, rounded up.
    """
    by_loss = sorted(losses, key=lambda layer: losses[layer][min(losses[layer])], reverse=True)
    return {layer: max(losses[layer]) for layer in by_loss[: math.ceil(share * len(losses))]}


def _most_bits(problem: Problem) -> int:
    return max(width for row in problem.losses.values() for width in row)


def _within(problem: Problem, n_weights: Mapping[str, int], limit: float) -> Solution | None:
    sizes = {layer: n_weights[layer] for layer in problem.losses}
    widths = {width for row in problem.losses.values() for width in row}
    try:
        return solve(replace(problem, budgets=(*problem.budgets, average_bits(sizes, widths, limit))))
    except InfeasibleBudgetError:
        return None
