"""Checks, before the search, that every value of a space is valid for a network."""

from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import cast

from spaces.candidate import StageValue, Value
from spaces.pruning.budgets.budget import by_ratio
from spaces.pruning.budgets.latency import Latency
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.cutting.network_facts import NetworkFacts
from spaces.pruning.cutting.prune_canonical import budget_of, check_data, check_reachable
from spaces.pruning.cutting.prune_knobs import DEFAULTS, LATENCY_MS, cuts_channels
from spaces.pruning.cutting.prune_unsuited import check_criterion
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext

MOST_BUDGETS = 64

Domains = Mapping[str, tuple[Value, ...]]


def check(
    facts: NetworkFacts,
    artifact: Artifact,
    domains: Domains,
    context: StageContext,
    min_channels: int,
    latency: Latency,
    criteria: Criteria,
) -> None:
    """Checks the values that a space can take, the extreme ones of `ratio` and `keep` among them.

    Of a knob whose values cannot be listed, nothing is known here; its values are checked as they are proposed.

    Args:
        facts: Structural properties of the network.
        artifact: The network.
        domains: For each knob of the space the values it can take; empty if not finite.
        context: Data and latency model.
        min_channels: Least channels of a layer that is cut.
        latency: The latency model of the stage's device.
        criteria: The criteria that the knob `criterion` may name.

    Raises:
        StageError: One of them cannot work; the message names the knob or the layer.
    """
    options = {knob: tuple(domains.get(knob, (default,))) for knob, default in DEFAULTS.items()}
    for globs in options["protect"]:
        facts.matching(cast(tuple[str, ...], globs))
    always = _always_protected(facts, options)
    if blocks := [cast(int, n) for n in options["drop_blocks"] if n]:
        facts.check_blocks(max(blocks), always)
    extremes: dict[str, StageValue] = {
        "ratio": max((cast(float, r) for r in options["ratio"]), default=0.0),
        "keep": min((cast(float, k) for k in options["keep"]), default=1.0),
        "protect": always,
        "drop_blocks": max(blocks, default=0),
    }
    hardest: dict[str, StageValue] = {**DEFAULTS, **extremes}
    ranges = any(knob in domains and not domains[knob] for knob in ("ratio", "keep"))
    if not ranges and not cuts_channels(hardest) and not blocks:
        return
    _check_all_data(facts, options, hardest, context, criteria)
    if ranges or cuts_channels(hardest):
        for name in map(str, options["criterion"]):
            if not criteria[name].needs_inputs:  # it takes no time, and one may not suit the network
                check_criterion(facts, artifact, name, context, criteria)
        _check_cuts(facts, artifact, options, hardest, context, min_channels, latency)


def _check_cuts(
    facts: NetworkFacts,
    artifact: Artifact,
    options: Domains,
    hardest: Mapping[str, StageValue],
    context: StageContext,
    min_channels: int,
    latency: Latency,
) -> None:
    limits = facts.limits(hardest, min_channels)
    by_ratio(facts.groups, facts.ratios(hardest["ratio"]), limits)
    if hardest["keep"] != 1.0 or not options["keep"]:
        if LATENCY_MS in options["budget_of"]:
            latency.check(artifact, context)
        for values in islice(_budgets(options, hardest), MOST_BUDGETS):
            check_reachable(facts, budget_of(facts, values), values, min_channels)


def _check_all_data(
    facts: NetworkFacts,
    options: Domains,
    hardest: Mapping[str, StageValue],
    context: StageContext,
    criteria: Criteria,
) -> None:
    for criterion in options["criterion"]:
        values = {**hardest, "criterion": criterion}
        values |= {k: True for k in ("mask_tuning", "reestimate_batch_norm") if True in options[k]}
        values["reestimate_batch_norm"] = True in options["reestimate_batch_norm"]
        check_data(values, context, facts.has_batch_norm, criteria)


def _budgets(options: Domains, hardest: Mapping[str, StageValue]) -> Iterator[dict[str, StageValue]]:
    """Yields the budgets that nothing but channels has to meet, those that leave least first."""
    ratios = [cast(float, r) for r in options["ratio"]] or [0.0]
    if min(ratios) > 0 or 0 not in options["drop_blocks"]:
        return
    keeps = sorted(cast(float, k) for k in options["keep"] if k != 1.0)
    kinds = [kind for kind in options["budget_of"] if kind != LATENCY_MS]
    for keep, kind, round_to in product(keeps, kinds, options["round_to"]):
        yield {**hardest, "ratio": 0.0, "keep": keep, "budget_of": kind, "round_to": round_to}


def _always_protected(facts: NetworkFacts, options: Domains) -> tuple[str, ...]:
    """Returns the layers that all values of `protect` protect."""
    if not options["protect"]:
        return ()
    found = [set(facts.matching(cast(tuple[str, ...], globs))) for globs in options["protect"]]
    common = set.intersection(*found)
    return tuple(name for name in facts.layers if name in common)
