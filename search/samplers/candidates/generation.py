"""Generates candidates in spaces too large to list: mutation and crossover of good ones, and random ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.codes import Array, Axis, Codes, without
from search.samplers.candidates.conditions import Conditions
from search.samplers.candidates.context import Params, SamplerContext

_FRESH = 0.05  # share of random candidates
_DRAWS = 32  # random candidates that are drawn one by one; conditions between knobs are learned from them
_CROSSED = 0.35  # share of children with two parents; half of those are mutated too
_BLENDED = 0.5  # share of those whose numbers lie on a line through both
_EXTENDED = 0.25  # how far beyond the parents, in their distance
_BLOCKS = 0.25  # share of children with a block move, where there are knobs per layer
_REMEMBERED = 1000  # random candidates kept for learning conditions
_SURPLUS = 1.3  # candidates generated per candidate asked for, as some are duplicates

Score = Callable[[Sequence[Params]], NDArray[np.float64]]


def propose_candidates(
    parents: Sequence[Params], context: SamplerContext, rng: np.random.Generator, n: int
) -> list[Params]:
    """Returns up to `n` different candidates, none of them a parent; fewer where the space holds no more nearby.

    Most are children of the parents: one or more knobs mutated (their number is geometric), two parents crossed knob by knob,
    or their numbers blended, and, for knobs with one value per layer, the same change to a run of neighbouring layers, or two layers' values swapped.
    Conditions are learned from the parents and from `context.draw`, so that the active knobs of a child
    mostly agree with its switches; constraints between knobs are not known here, a child may violate one.

    Args:
        parents: Good candidates: the front, the best predictions. Without any, all candidates are random.
        context: Its `distributions` and `draw` are used.
        rng: Source of all draws.
        n: The most candidates to return.
    """
    return list(Generator(context, rng).propose(parents, n))


def evolve(
    parents: Sequence[Params],
    score: Score,
    context: SamplerContext,
    rng: np.random.Generator,
    rounds: int = 4,
    n: int = 1000,
    keep: int = 40,
) -> tuple[list[Params], NDArray[np.float64]]:
    """Searches for the candidates with the highest score by an evolutionary algorithm.

    Args:
        parents: Good candidates to begin with; they stay parents in every round and are not returned.
        score: Returns the scores `(n,)` of candidates, higher is better, e.g. an acquisition function.
        context: Its `distributions` and `draw` are used.
        rng: Source of all draws.
        rounds: Number of generations.
        n: Candidates per generation.
        keep: How many of the best so far become parents of the next generation, and are returned.

    Returns:
        The best candidates, best first, and their scores.
    """
    generator = Generator(context, rng)
    best: list[Params] = []
    scores = np.zeros(0)
    for _ in range(rounds):
        new = generator.propose([*best, *parents], n)  # without those in `best`
        if not new:
            break
        scores = np.concatenate([scores, score(new)])
        order = np.argsort(-scores, kind="stable")[:keep]
        best, scores = [[*best, *new][i] for i in order], scores[order]
    return best, scores


class Generator:
    """Generates candidates of one space; the random candidates for learning conditions are kept between calls.

    Args:
        context: Its `distributions` and `draw` are used.
        rng: Source of all draws.
    """

    def __init__(self, context: SamplerContext, rng: np.random.Generator) -> None:
        self._draw, self._rng = context.draw, rng
        self._codes = Codes(context.distributions)
        self._runs = _layer_runs(self._codes)
        self._valid = np.zeros((0, len(self._codes.names)))  # random valid rows, to learn conditions from

    def propose(self, parents: Sequence[Params], n: int) -> list[dict[str, Any]]:
        """Returns up to `n` different candidates, none of them a parent; see `propose_candidates`."""
        if not self._codes.names or n <= 0:
            return []
        rows = self._codes.encode(parents)
        if not len(rows):
            found = without(self._random(n, n), rows)
        else:
            new = self._random(round(_FRESH * n), _DRAWS)
            found = without(np.concatenate([new, self._children(rows, round(_SURPLUS * n))]), rows)
            if len(found) < n:  # few parents: many children are duplicates
                more = self._children(rows, round(_SURPLUS * n))
                found = without(np.concatenate([found, more, self._random(n // 4, _DRAWS)]), rows)
        if len(found) > n:
            found = found[np.sort(self._rng.choice(len(found), n, replace=False))]
        return self._codes.decode(found)

    def _random(self, n: int, n_draws: int) -> Array:
        """Returns about `n` random rows; only the `n_draws` that are drawn one by one if there are conditions."""
        if self._draw is None:
            return self._codes.draw(n, self._rng)
        drawn = self._codes.encode([self._draw(self._rng) for _ in range(n_draws)])
        self._valid = np.concatenate([self._valid, drawn])[-_REMEMBERED:]
        if np.isnan(self._valid).any() or n <= n_draws:
            return drawn
        return np.concatenate([drawn, self._codes.draw(n - n_draws, self._rng)])

    # -- children ------------------------------------------------------------------------------------------------

    def _children(self, parents: Array, n: int) -> Array:
        conditions = Conditions(np.concatenate([parents, self._valid]))
        n_blocks = round(_BLOCKS * n) if self._runs else 0
        n_crossed = round(_CROSSED * n)
        crossed = self._crossed(parents, n_crossed, conditions)
        half = n_crossed // 2
        single = self._some(parents, n - n_crossed - n_blocks)
        mutated = self._mutated(np.concatenate([crossed[:half], single]), conditions)
        moved = self._block_moves(self._some(parents, n_blocks), conditions) if n_blocks else parents[:0]
        return np.concatenate([crossed[half:], mutated, moved])

    def _some(self, rows: Array, n: int) -> Array:
        return rows[self._rng.integers(len(rows), size=n)]

    def _crossed(self, parents: Array, n: int, conditions: Conditions) -> Array:
        """Returns `n` children of two random parents each, `(n, n_knobs)`, by uniform crossover.

        Switches, and conditional knobs where the parents' active knobs differ, come from one parent together.
        One in ten second parents is a random candidate, so that switches can change.
        """
        first = self._some(parents, n)
        second = self._some(parents, n)
        if len(self._valid):
            is_random = self._rng.random(n) < 0.1
            second[is_random] = self._some(self._valid, int(is_random.sum()))
        from_second = self._rng.random(first.shape) < 0.5
        as_a_whole = conditions.switch | (
            conditions.conditional & ~conditions.same_active(first, second)[:, None]
        )
        side = np.broadcast_to(self._rng.random((n, 1)) < 0.5, first.shape)
        first, second = self._blended(first, second, conditions)
        return np.asarray(np.where(np.where(as_a_whole, side, from_second), second, first))

    def _blended(self, first: Array, second: Array, conditions: Conditions) -> tuple[Array, Array]:
        """Returns the parents; of half of the pairs both have the numbers of a point on the line through both.

        Line recombination with extension (Muehlenbein & Schlierkamp-Voosen 1993, "Predictive models for the breeder genetic
        algorithm", section 3.2): crossover alone leaves ranges at values that were tried.
        """
        place = self._rng.uniform(-_EXTENDED, 1 + _EXTENDED, size=len(first))
        chosen = self._rng.random(len(first)) < _BLENDED
        first, second = first.copy(), second.copy()
        for knob, axis in enumerate(self._codes.axes):
            if axis.is_number and not conditions.switch[knob]:
                at = np.flatnonzero(chosen & ~np.isnan(first[:, knob]) & ~np.isnan(second[:, knob]))
                between = axis.between(first[at, knob], second[at, knob], place[at])
                first[at, knob] = second[at, knob] = between
        return first, second

    def _mutated(self, rows: Array, conditions: Conditions) -> Array:
        """Changes a geometric number of each row's active knobs, numbers by a small step or by a new draw."""
        rows = rows.copy()
        n, k = rows.shape
        count = np.minimum(self._rng.geometric(0.5, size=n), k)
        fixed = np.array([axis.kind.single() for axis in self._codes.axes])
        order = self._rng.random(rows.shape) + (np.isnan(rows) | fixed)  # knobs that cannot change come last
        chosen = order <= np.take_along_axis(np.sort(order, axis=1), count[:, None] - 1, axis=1)
        chosen &= ~np.isnan(rows)
        for knob in np.flatnonzero(chosen.any(axis=0)):
            at = np.flatnonzero(chosen[:, knob])
            values = self._varied(int(knob), rows[at, knob])
            fits = conditions.fits(rows[at], int(knob), values)
            rows[at[fits], knob] = values[fits]
        return rows

    def _varied(self, knob: int, values: Array) -> Array:
        axis = self._codes.axes[knob]
        near = self._rng.random(len(values)) < 0.5
        return np.where(near, axis.step(values, self._rng), axis.draw(len(values), self._rng))

    # -- knobs with one value per layer --------------------------------------------------------------------------

    def _block_moves(self, rows: Array, conditions: Conditions) -> Array:
        """Changes a run of neighbouring layers of each row in the same way, or swaps the values of two layers."""
        rows = rows.copy()
        which = self._rng.integers(len(self._runs), size=len(rows))
        for at, layers in enumerate(self._runs):
            layers = layers[~conditions.switch[layers]]
            if len(layers) > 1:
                block = np.ix_(which == at, layers)
                rows[block] = self._moved(rows[block], self._codes.axes[int(layers[0])])
        return rows

    def _moved(self, values: Array, axis: Axis) -> Array:
        """Changes a run in each row of `(n, n_layers)` values of knobs with the same distribution; NaN stays NaN."""
        rng = self._rng
        n, n_layers = values.shape
        each = np.arange(n)
        start, other = rng.integers(n_layers, size=(2, n))
        stop = start + 1 + rng.geometric(0.4, size=n)
        at = np.arange(n_layers)
        in_run = (at >= start[:, None]) & (at < stop[:, None])
        first = values[each, start]
        equal = np.broadcast_to(axis.draw(n, rng)[:, None], values.shape)
        moved = equal
        if axis.is_number:  # half of the runs are shifted by a common step, the others get a common value
            by = axis.step(np.where(np.isnan(first), equal[:, 0], first), rng) - first
            shifted = axis.snap(values + by[:, None])
            moved = np.where(rng.random((n, 1)) < 0.5, shifted, equal)
        found = np.where(in_run & ~np.isnan(values), moved, values)
        found = np.where(np.isnan(found), values, found)
        swap = (rng.random(n) < 0.3) & ~np.isnan(first) & ~np.isnan(values[each, other])
        found[swap] = values[swap]
        found[each[swap], start[swap]] = values[each[swap], other[swap]]
        found[each[swap], other[swap]] = first[swap]
        return np.asarray(found)


def _layer_runs(codes: Codes) -> list[NDArray[np.intp]]:
    """Returns the columns of each knob that has one value per layer, in the order of the layers.

    Layers with different distributions are in different arrays.
    """
    groups: dict[Any, list[int]] = {}
    for at, (name, axis) in enumerate(zip(codes.names, codes.axes, strict=True)):
        base, bracket, _ = name.partition("[")
        if bracket:
            groups.setdefault((base, repr(axis.kind)), []).append(at)
    return [np.array(columns, dtype=np.intp) for columns in groups.values() if len(columns) > 1]
