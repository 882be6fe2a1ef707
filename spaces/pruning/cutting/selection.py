"""Which channels a cut keeps: criteria rank them, ratios and budgets say how many."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spaces.candidate import StageValue
from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.pruning.budgets.arithmetic import NKept
from spaces.pruning.budgets.budget import Limits, Ranking, by_ratio, within
from spaces.pruning.budgets.latency import Latency
from spaces.pruning.budgets.latency_budget import within_latency
from spaces.pruning.budgets.target import TOLERANCE, Budget
from spaces.pruning.criteria.criterion import Evidence
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.cutting.examples import examples_of
from spaces.pruning.cutting.network_facts import FactsOf, NetworkFacts
from spaces.pruning.cutting.prune_canonical import budget_of
from spaces.pruning.cutting.prune_knobs import CUT, LATENCY_MS, MACS
from spaces.pruning.groups.cut import Kept, cut
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext

Notes = dict[str, Any]

SPARED = "residual channels, which stay whole where the budget leaves enough of the others (prune.residuals)"
# Residuals stay whole if this share of what can be cut beside them is left. Of ResNet-20 at half its MACs (0.41) that was 1.5 points
# better than cutting them, too; at 0.3 (0.18), 3 points worse.
ENOUGH = 1 / 3
ROUGHLY = 0.1  # how near the budget of a round has to be that is not the last


@dataclass(frozen=True)
class Settings:
    """The stage's constructor arguments.

    Attributes:
        min_channels: Least output channels of a layer that is cut.
        n_examples: Examples for criteria, blocks, mask tuning and BatchNorm.
        block_measure: A name of `blocks.MEASURES`.
        threads: Threads that torch computes with.
        criteria: The criteria that the knob `criterion` may name.
    """

    min_channels: int
    n_examples: int
    block_measure: str
    threads: int
    criteria: Criteria


@dataclass(frozen=True)
class Aim:
    """The goal of a cut.

    Attributes:
        values: Canonical values of the prune stage.
        dense: The network that ratios and `keep` are shares of.
        progress: How far the cut goes towards them, in (0, 1]: the exponent of the share that is kept.
    """

    values: Mapping[str, StageValue]
    dense: Artifact
    progress: float = 1.0

    @property
    def keep(self) -> float:
        """The share of the dense network's cost that may be left."""
        keep = float(cast(float, self.values["keep"]))
        return float(keep**self.progress)


class Selection:
    """Chooses channels.

    Args:
        settings: The stage's constructor arguments.
        facts_of: Returns the structural properties of a network.
        latency: Predicts latency on the stage's device.
    """

    def __init__(self, settings: Settings, facts_of: FactsOf, latency: Latency) -> None:
        self._settings, self._facts_of, self._latency = settings, facts_of, latency

    def kept(self, artifact: Artifact, aim: Aim, context: StageContext) -> tuple[Kept, Notes]:
        """Returns the channels to keep by group, and notes on the cut: modelled latencies, a budget that is missed.

        Args:
            artifact: The network: the dense one, or what is left of it.
            aim: The goal of the cut.
            context: Data, cache, seed, latency model.

        Raises:
            StageError: The values cannot be applied to the network.
        """
        ranking = self._ranking(artifact, str(aim.values["criterion"]), context)
        most = self._left_by_ratios(self._facts_of(artifact), aim)
        if aim.values["keep"] == 1.0:
            return ranking.kept(most), {}
        if aim.values["budget_of"] == LATENCY_MS:
            return self._within_latency(artifact, aim, context, ranking, most)
        facts = self._facts_of(artifact)
        budget = self._budget(facts, aim)
        limits = self._limits_within(facts, aim, most, lambda n_kept: float(budget.shares(n_kept)))
        n_kept = within(budget, ranking, most, limits)
        notes = _missed(budget, float(budget.shares(n_kept)), most, n_kept)
        return ranking.kept(n_kept), notes | self._spared(facts, aim, limits)

    def _limits(self, facts: NetworkFacts, aim: Aim) -> Limits:
        return facts.limits(aim.values, self._settings.min_channels)

    def _limits_within(
        self, facts: NetworkFacts, aim: Aim, most: NKept, share: Callable[[NKept], float]
    ) -> Limits:
        """Returns the limits under a budget: residuals stay whole if enough of the other channels can stay, too."""
        limits = self._limits(facts, aim)
        if aim.values["residuals"] == CUT or not facts.residuals:
            return limits
        spared = replace(limits, protected=limits.protected | facts.residuals)
        least = np.array([spared.allowed(group)[0] for group in facts.groups], np.int64)
        smallest = share(np.minimum(most, least))
        return spared if aim.keep - smallest >= ENOUGH * (1 - smallest) else limits

    def _spared(self, facts: NetworkFacts, aim: Aim, limits: Limits) -> Notes:
        """Returns a note on the groups that the knob `residuals` leaves whole."""
        spared = limits.protected - self._limits(facts, aim).protected
        lines = [f"{', '.join(g.layers)}: {SPARED}" for g in facts.groups if g.name in spared]
        return {"spared": lines} if lines else {}

    def _left_by_ratios(self, facts: NetworkFacts, aim: Aim) -> NKept:
        """Counts from the dense network's channels, so that rounds do not add up roundings."""
        dense = self._facts_of(aim.dense)
        ratios = {name: 1 - (1 - r) ** aim.progress for name, r in dense.ratios(aim.values["ratio"]).items()}
        left = by_ratio(dense.groups, ratios, self._limits(dense, aim)).tolist()
        wanted = {group.name: n for group, n in zip(dense.groups, left, strict=True)}
        return np.array([min(g.n_channels, wanted.get(g.name, g.n_channels)) for g in facts.groups], np.int64)

    def _budget(self, facts: NetworkFacts, aim: Aim) -> Budget:
        counts = self._facts_of(aim.dense).counts
        of_macs = aim.values["budget_of"] in (MACS, LATENCY_MS)
        budget = budget_of(facts, aim.values, counts.macs if of_macs else counts.weight_bytes)
        tolerance = TOLERANCE if aim.progress == 1.0 else ROUGHLY
        return replace(budget, keep=aim.keep, tolerance=tolerance, strict=False)

    def _within_latency(
        self, artifact: Artifact, aim: Aim, context: StageContext, ranking: Ranking, most: NKept
    ) -> tuple[Kept, Notes]:
        facts, module = self._facts_of(artifact), cast(nn.Module, artifact.model)
        whole = self._latency(cast(nn.Module, aim.dense.model), aim.dense.input, context)

        def share(n_kept: NKept) -> float:
            smaller = cut(module, facts.groups, ranking.kept(n_kept))
            return self._latency(smaller, artifact.input, context) / whole

        limits = self._limits_within(facts, aim, most, share)
        budget = replace(self._budget(facts, aim), of=LATENCY_MS)
        n_kept = within_latency(aim.keep, share, budget, ranking, most, limits)
        left = share(n_kept)
        notes: Notes = {"latency_ms_before": whole, "latency_ms_after": left * whole}
        notes |= _missed(budget, left, most, n_kept) | self._spared(facts, aim, limits)
        return ranking.kept(n_kept), notes

    def _ranking(self, artifact: Artifact, name: str, context: StageContext) -> Ranking:
        """Scores depend on neither ratios nor budgets: candidates that differ in these share them."""
        criteria, groups = self._settings.criteria, self._facts_of(artifact).groups
        criterion = criteria[name]
        inputs, labels, digest = torch.zeros(0, *artifact.input.packed_shape), None, ""
        if criterion.needs_inputs:
            examples = examples_of(context, self._settings.n_examples, f"prune.criterion={name}")
            inputs, labels, digest = examples.inputs, examples.labels, examples.digest

        def build() -> dict[str, NDArray[Any]]:
            generator = torch.Generator().manual_seed(context.seed)
            evidence = Evidence(
                cast(nn.Module, artifact.model), groups, inputs, labels, generator, artifact.input.output
            )
            scores = criterion.scores(evidence)
            return {str(at): scores[group.name].numpy() for at, group in enumerate(groups)}

        key = digest_of(
            artifact.digest,
            artifact.input.output,
            criteria.digest(name),
            digest,
            context.seed,
            self._settings.threads,
        )
        found = context.cache.arrays(f"prune-scores-{key}", build)
        return Ranking(groups, tuple(cast(NDArray[np.float64], found[str(at)]) for at in range(len(groups))))


def _missed(budget: Budget, share: float, most: NKept, n_kept: NKept) -> Notes:
    """Returns a note if a cut is further below a budget than the tolerance.

    Raises:
        StageError: It is further above the budget.
    """
    far = f"prune.keep={budget.keep:g} cannot be met within {budget.tolerance:g}: the nearest cut"
    left = f"leaves {share:.3f} of the dense network's {budget.of}"
    if share > budget.keep + budget.tolerance and budget.tolerance <= TOLERANCE:
        raise StageError(f"{far} that was found {left}")
    if share >= budget.keep - budget.tolerance or np.array_equal(n_kept, most):
        return {}
    return {"missed": f"{far} below {left}"}
