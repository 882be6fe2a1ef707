"""The values of a space that cannot be applied to a network, each with the reason."""

from collections.abc import Mapping
from itertools import product

import torch

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.pruning.criteria.criterion import Evidence
from spaces.pruning.criteria.registry import Criteria
from spaces.pruning.cutting.examples import examples_of, source
from spaces.pruning.cutting.network_facts import NetworkFacts
from spaces.pruning.cutting.prune_canonical import budget_of, check_data, check_reachable
from spaces.pruning.cutting.prune_knobs import DEFAULTS, LATENCY_MS
from spaces.recovery.training.determinism import fixed_threads
from spaces.stages.artifact import Artifact
from spaces.stages.refusals import refusals
from spaces.stages.stage import StageContext

Domains = Mapping[str, tuple[Value, ...]]
Reasons = dict[Value, str]

N_EXAMPLES = 2  # that criteria are tried with


def unsuited(
    facts: NetworkFacts,
    artifact: Artifact,
    domains: Domains,
    context: StageContext,
    min_channels: int,
    criteria: Criteria,
) -> dict[str, Reasons]:
    """Returns the criteria, numbers of blocks, budgets and roundings that do not suit the network.

    Args:
        facts: Structural properties of the network.
        artifact: The network.
        domains: For each knob of the space the values it can take; empty if not finite.
        context: The data.
        min_channels: Least channels of a layer that is cut.
        criteria: The criteria that the knob `criterion` may name.

    Raises:
        StageError: No channels of the network can be cut, although the space asks for that.
    """

    def criterion(name: Value) -> None:
        check_criterion(facts, artifact, str(name), context, criteria)

    def blocks(n: Value) -> None:
        assert isinstance(n, int)
        if n:
            facts.check_blocks(n, ())

    found = {"drop_blocks": refusals(blocks, domains.get("drop_blocks", ()))}
    if any(not domains.get(k, (v,)) or set(domains.get(k, (v,))) != {v} for k, v in _UNCUT.items()):
        facts.require_groups()  # what no value is the cause of
        found["criterion"] = refusals(criterion, domains.get("criterion", ()))
        found |= _out_of_reach(facts, domains, min_channels)
    return found


_UNCUT = {knob: DEFAULTS[knob] for knob in ("ratio", "keep")}


def check_criterion(
    facts: NetworkFacts, artifact: Artifact, name: str, context: StageContext, criteria: Criteria
) -> None:
    """Checks that a criterion can score the network's channels, by a try with very few examples.

    Raises:
        StageError: It cannot.
    """
    module, criterion = artifact.model, criteria[name]
    assert isinstance(module, torch.nn.Module)
    check_data({**DEFAULTS, "keep": 0.5, "criterion": name}, context, False, criteria)
    inputs, labels = torch.zeros(0, *artifact.input.packed_shape), None
    if criterion.needs_inputs and source(context) is not None:
        examples = examples_of(context, N_EXAMPLES, f"prune.criterion={name}")
        inputs, labels = examples.inputs, examples.labels
    with fixed_threads(1):
        generator = torch.Generator().manual_seed(0)
        criterion.scores(Evidence(module, facts.groups, inputs, labels, generator, artifact.input.output))


def _out_of_reach(facts: NetworkFacts, domains: Domains, min_channels: int) -> dict[str, Reasons]:
    """Returns the budgets that no rounding reaches, and the roundings that reach no budget."""
    options = {k: tuple(domains.get(k, (DEFAULTS[k],))) for k in ("keep", "budget_of", "round_to")}
    keeps = [keep for keep in options["keep"] if keep != 1.0]
    problems: dict[tuple[str, Value], list[str]] = {}
    for keep, of, round_to in product(keeps, options["budget_of"], options["round_to"]):
        values: dict[str, StageValue] = {**DEFAULTS, "keep": keep, "budget_of": of, "round_to": round_to}
        problem = "" if of == LATENCY_MS else _problem(facts, values, min_channels)
        problems.setdefault(("keep", keep), []).append(problem)
        problems.setdefault(("round_to", round_to), []).append(problem)
    found: dict[str, Reasons] = {}
    for (knob, value), texts in problems.items():
        if knob in domains and all(texts):
            found.setdefault(knob, {})[value] = texts[0]
    return found


def _problem(facts: NetworkFacts, values: Mapping[str, StageValue], min_channels: int) -> str:
    try:
        check_reachable(facts, budget_of(facts, values), values, min_channels)
    except StageError as error:
        return str(error)
    return ""
