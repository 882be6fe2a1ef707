"""One cut of a network: removes blocks and channels, tunes masks, re-estimates BatchNorm statistics."""

import copy
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from spaces.digest import digest_of
from spaces.pruning.budgets.latency import Latency
from spaces.pruning.cutting.batch_norm import reestimate_batch_norm
from spaces.pruning.cutting.blocks import MEASURES, drop_blocks, most_eligible
from spaces.pruning.cutting.examples import examples_of
from spaces.pruning.cutting.mask_tuning import tune_masks
from spaces.pruning.cutting.network_facts import FactsOf, NetworkFacts
from spaces.pruning.cutting.prune_knobs import cuts_channels
from spaces.pruning.cutting.selection import Aim, Selection, Settings
from spaces.pruning.groups.counts import Counts, layer_counts, total
from spaces.pruning.groups.cut import cut, kept_outputs, widths
from spaces.recovery.training.determinism import fixed_threads
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

Notes = dict[str, Any]


class Pruning:
    """Cuts networks.

    Args:
        settings: The stage's constructor arguments.
        facts_of: Returns the structural properties of a network.
        latency: Predicts latency on the stage's device.
    """

    def __init__(self, settings: Settings, facts_of: FactsOf, latency: Latency) -> None:
        self._settings, self._facts_of = settings, facts_of
        self._selection = Selection(settings, facts_of, latency)

    def __call__(
        self, artifact: Artifact, aim: Aim, context: StageContext, n_blocks: int
    ) -> tuple[nn.Module, Notes]:
        """Returns the cut network, in eval mode, and notes on the cut for the artifact, JSON-able.

        Args:
            artifact: The network: the dense one, or one that was cut before; stays as it is.
            aim: The target of the cut.
            context: Data, cache, seed, latency model.
            n_blocks: How many blocks to remove in this cut.

        Raises:
            StageError: The values cannot be applied to the network.
        """
        with fixed_threads(self._settings.threads):
            notes: Notes = {**_count_notes("before", self._facts_of(aim.dense).counts), "blocks": []}
            if n_blocks:
                artifact, notes["blocks"] = self._without_blocks(artifact, aim, context, n_blocks)
            facts = self._facts_of(artifact)
            module = cast(nn.Module, artifact.model)
            if cuts_channels(aim.values):
                module = self._without_channels(artifact, aim, context, notes)
            if aim.values["reestimate_batch_norm"] and facts.has_batch_norm:
                module = copy.deepcopy(module)
                reestimate_batch_norm(module, self._inputs(context, "reestimate_batch_norm"))
        notes |= _count_notes("after", total(layer_counts(module, artifact.input.packed_shape).values()))
        dense = widths(cast(nn.Module, aim.dense.model))
        notes["widths"] = {name: [dense[name], n] for name, n in widths(module).items()}
        return module.eval(), notes

    def _inputs(self, context: StageContext, knob: str) -> Any:
        return examples_of(context, self._settings.n_examples, f"prune.{knob}").inputs

    def _without_blocks(
        self, artifact: Artifact, aim: Aim, context: StageContext, n_blocks: int
    ) -> tuple[Artifact, list[str]]:
        facts, protected = self._facts_of(artifact), cast(tuple[str, ...], aim.values["protect"])
        facts.check_blocks(n_blocks, protected)
        free = facts.free_blocks(protected)
        changes = self._changes(artifact, facts, context)
        # Protected blocks count for the positions of the others, but are never chosen.
        chosen = most_eligible({n: c if n in free else float("inf") for n, c in changes.items()}, n_blocks)
        return torch_artifact(drop_blocks(cast(nn.Module, artifact.model), chosen), artifact.input), chosen

    def _changes(self, artifact: Artifact, facts: NetworkFacts, context: StageContext) -> dict[str, float]:
        """Returns the importance of each block, which does not depend on how many are removed."""
        examples = examples_of(context, self._settings.n_examples, "prune.drop_blocks")
        measure, names = self._settings.block_measure, list(facts.blocks)

        def build() -> dict[str, NDArray[Any]]:
            changes = MEASURES[measure](cast(nn.Module, artifact.model), names, examples.inputs)
            return {"changes": np.array([changes[name] for name in names])}

        key = digest_of(artifact.digest, measure, examples.digest, self._settings.threads)
        values = context.cache.arrays(f"prune-blocks-{key}", build)["changes"]
        return dict(zip(names, values.tolist(), strict=True))

    def _without_channels(
        self, artifact: Artifact, aim: Aim, context: StageContext, notes: Notes
    ) -> nn.Module:
        facts, module = self._facts_of(artifact), cast(nn.Module, artifact.model)
        kept, chosen = self._selection.kept(artifact, aim, context)
        spared = chosen.pop("spared", [])
        smaller = cut(module, facts.groups, kept)
        whole = facts.limits(aim.values, self._settings.min_channels).protected
        protected = (f"{', '.join(g.layers)}: protected" for g in facts.groups if g.name in whole)
        notes |= {**chosen, "left_alone": [*map(str, facts.analysis.left_alone), *protected, *spared]}
        if aim.values["mask_tuning"]:
            outputs = kept_outputs(module, facts.groups, kept)
            scaled = {part.name for group in facts.groups for part in group.slices if part.power}
            inputs = self._inputs(context, "mask_tuning")
            tuned = tune_masks(module, smaller, outputs, inputs, scaled=scaled)
            notes["mask_tuning"] = {name: list(errors) for name, errors in tuned.items()}
        return smaller


def _count_notes(when: str, counts: Counts) -> Notes:
    return {
        f"macs_{when}": counts.macs,
        f"parameters_{when}": counts.parameters,
        f"weight_bytes_{when}": counts.weight_bytes,
    }
