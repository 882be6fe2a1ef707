"""Canonical values of the prune stage, and whether they can be built: decided without building a network."""

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.pruning.budgets.arithmetic import NKept
from spaces.pruning.budgets.budget import by_ratio
from spaces.pruning.budgets.target import TOLERANCE, Budget
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.cutting.examples import has_labels, source
from spaces.pruning.cutting.network_facts import NetworkFacts
from spaces.pruning.cutting.prune_knobs import (
    DEFAULTS,
    LATENCY_MS,
    MACS,
    OF_CHANNELS,
    check_values,
    cuts_channels,
    knobs_with,
)
from spaces.stages.stage import StageContext

Values = dict[str, StageValue]


def canonical(
    facts: NetworkFacts,
    values: Mapping[str, StageValue],
    context: StageContext,
    min_channels: int,
    criteria: Criteria,
) -> Values:
    """Maps values that yield the same network onto the same canonical values.

    Args:
        facts: Structural properties of the network.
        values: A value for every knob.
        context: The data.
        min_channels: Least channels of a layer that is cut.
        criteria: The criteria that the knob `criterion` may name.

    Raises:
        StageError: A value is wrong, or the combination cannot be built.
    """
    check_values(values, knobs_with(criteria))
    chosen = dict(values)
    n_blocks = cast(int, chosen["drop_blocks"])
    protected = facts.matching(cast(tuple[str, ...], chosen["protect"]))
    facts.check_layers(chosen["ratio"])
    if cuts_channels(chosen):
        chosen |= _of_channels(facts, chosen, min_channels)
    if not cuts_channels(chosen):
        if not n_blocks:
            return dict(DEFAULTS)
        chosen |= {name: DEFAULTS[name] for name in OF_CHANNELS}
    if n_blocks:
        facts.check_blocks(n_blocks, protected)
    chosen["protect"] = _effective(facts, chosen, protected)
    if not facts.has_batch_norm:
        chosen["reestimate_batch_norm"] = DEFAULTS["reestimate_batch_norm"]
    check_data(chosen, context, facts.has_batch_norm, criteria)
    return chosen


def _of_channels(facts: NetworkFacts, chosen: Values, min_channels: int) -> Values:
    """Returns the values of the knobs that say which channels go, without those that have no effect."""
    limits, found = facts.limits(chosen, min_channels), Values()
    n_kept = by_ratio(facts.groups, facts.ratios(chosen["ratio"]), limits)
    found["ratio"] = _plain_ratio(facts, chosen["ratio"]) if np.any(n_kept < _n_channels(facts)) else 0.0
    if not chosen["drop_blocks"] and chosen["budget_of"] != LATENCY_MS and chosen["keep"] != 1.0:
        budget = budget_of(facts, chosen)
        if budget.shares(n_kept) <= budget.keep:
            found["keep"] = 1.0
        else:
            check_reachable(facts, budget, chosen, min_channels)
    if found.get("keep", chosen["keep"]) == 1.0 or not facts.residuals:
        found["residuals"] = DEFAULTS["residuals"]
    if found.get("keep", chosen["keep"]) == 1.0:
        found["budget_of"] = DEFAULTS["budget_of"]
        finer = facts.limits(chosen | {"round_to": 1}, min_channels)
        if np.array_equal(by_ratio(facts.groups, facts.ratios(chosen["ratio"]), finer), n_kept):
            found["round_to"] = 1
    return found


def budget_of(facts: NetworkFacts, values: Mapping[str, StageValue], dense: int | None = None) -> Budget:
    """Returns the budget of MACs (also for one of latency, which is searched for among these) or of bytes.

    Args:
        facts: Structural properties of the network that is cut.
        values: A value for every knob.
        dense: The cost that `keep` is a share of; None for this network's own.
    """
    of = MACS if values["budget_of"] == LATENCY_MS else str(values["budget_of"])
    costs = facts.arithmetic.macs if of == MACS else facts.arithmetic.weight_bytes
    own = facts.counts.macs if of == MACS else facts.counts.weight_bytes
    return Budget(float(cast(float, values["keep"])), own if dense is None else dense, costs, of)


def check_reachable(
    facts: NetworkFacts, budget: Budget, values: Mapping[str, StageValue], min_channels: int
) -> None:
    """Checks that the smallest network that can be cut to is within a budget.

    Raises:
        StageError: It is.
    """
    limits = facts.limits(values, min_channels)
    least = np.array([limits.allowed(group)[0] for group in facts.groups])
    share = float(budget.shares(least))
    if share > budget.keep + TOLERANCE:
        raise StageError(
            f"prune.keep={budget.keep:g} cannot be met: at least {share:.3f} of the dense network's {budget.of} is left ({limits}; "
            "layers that cannot be cut or are protected stay whole)"
        )


def n_kept_by_ratio(facts: NetworkFacts, values: Mapping[str, StageValue], min_channels: int) -> NKept:
    """Returns how many channels of each group the knob `ratio` leaves, `(n_groups,)`."""
    return by_ratio(facts.groups, facts.ratios(values["ratio"]), facts.limits(values, min_channels))


def check_data(
    values: Mapping[str, StageValue], context: StageContext, has_batch_norm: bool, criteria: Criteria
) -> None:
    """Checks that there are the examples and labels that the values need.

    Raises:
        StageError: There are not.
    """
    name = str(values["criterion"])
    criterion = criteria[name]
    cuts = cuts_channels(values)
    if cuts and criterion.needs_labels and not has_labels(context):
        raise StageError(
            f"prune.criterion={name} needs labels, but the task's train split has none; "
            f"{', '.join(other for other, c in criteria.items() if not c.needs_labels)} do without"
        )
    if source(context) is not None:
        return
    asking = {
        f"criterion={name}": cuts and criterion.needs_inputs,
        "mask_tuning": cuts and bool(values["mask_tuning"]),
        "drop_blocks": bool(values["drop_blocks"]),
        "reestimate_batch_norm": bool(values["reestimate_batch_norm"]) and has_batch_norm,
    }
    if wanting := next((name for name, needs in asking.items() if needs), None):
        raise StageError(
            f"prune.{wanting} needs examples, but there is neither a train nor a calibration split"
        )


def empty_knobs(facts: NetworkFacts, domains: Mapping[str, tuple[Value, ...]]) -> dict[str, str]:
    """Returns the knobs of a space that cannot change the network, each with the reason.

    Args:
        facts: Structural properties of the network.
        domains: For each knob of the space the values it can take; empty if not finite.
    """

    def always(knob: str, value: Value) -> bool:
        return set(domains.get(knob, (DEFAULTS[knob],))) == {value}

    cuts = not (always("ratio", 0.0) and always("keep", 1.0))
    found: dict[str, str] = {}
    if not cuts:
        found |= dict.fromkeys(OF_CHANNELS, "ratio is 0 and keep is 1: no channels are cut")
        if always("drop_blocks", 0):
            found |= dict.fromkeys(("protect", "reestimate_batch_norm"), "nothing is cut")
    elif always("keep", 1.0):
        found |= dict.fromkeys(("budget_of", "residuals"), "keep is 1: there is no budget")
    elif not facts.residuals:
        found["residuals"] = "no layer's outputs are added to those of another"
    if not facts.has_batch_norm:
        found["reestimate_batch_norm"] = "the network has no BatchNorm that keeps statistics"
    return {knob: reason for knob, reason in found.items() if len(domains.get(knob, ("",))) != 1}


def _n_channels(facts: NetworkFacts) -> NKept:
    return np.array([group.n_channels for group in facts.groups])


def _plain_ratio(facts: NetworkFacts, ratio: StageValue) -> StageValue:
    """Keeps the shares of the layers that can be cut; one number if they all have the same."""
    if not isinstance(ratio, dict):
        return float(cast(float, ratio))
    names = [name for name in facts.layers if any(name in group.layers for group in facts.groups)]
    shares = {name: float(cast(float, ratio.get(name, 0.0))) for name in names}
    return cast(StageValue, shares) if len(set(shares.values())) > 1 else next(iter(shares.values()))


def _effective(facts: NetworkFacts, chosen: Values, protected: Iterable[str]) -> tuple[str, ...]:
    """Keeps the protected layers that could otherwise be cut, or lie in a block that could go."""
    at_stake: set[str] = set()
    if cuts_channels(chosen):
        at_stake |= {layer for group in facts.groups for layer in group.layers}
    if chosen["drop_blocks"]:
        at_stake |= {layer for layers in facts.blocks.values() for layer in layers}
    return tuple(name for name in protected if name in at_stake)
