"""Makes the sampler that a config names, and binds it to space, objectives and knowledge."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import optuna

from search.allocators.base import AllocationContext, Allocator
from search.planning.config.instantiate import instantiate
from search.planning.config.schema import Config
from search.record.results import Objective
from search.record.suggest import Param, distribution_of, params_of, pool
from search.samplers.candidates.context import (
    Bindable,
    Expense,
    KnowledgeRow,
    LowFidelityEvaluations,
    SamplerContext,
)
from spaces.candidate import Candidate
from spaces.digest import digest_of
from spaces.space import Space


def check_allocator(config: Config, context: AllocationContext) -> None:
    """Checks the sampler's allocator, if it has one, as the sampler does when a study begins.

    Raises:
        ConfigError: The allocator does not fit the study, or no allocation keeps the budgets.
    """
    section = config.section("sampler").get("allocator")
    if isinstance(section, Mapping):
        allocator: Allocator = instantiate(section, "allocator", config.trusted, [Allocator])
        allocator.check(context)


def sampler_factory(
    config: Config,
    space: Space,
    objectives: Sequence[Objective],
    candidates: Sequence[Candidate] | None = None,
    knowledge: Sequence[KnowledgeRow] = (),
    descriptors: Mapping[str, float] | None = None,
    low_fidelity: LowFidelityEvaluations | None = None,
    baselines: Sequence[float | None] = (),
    allocation: AllocationContext | None = None,
    expense: Expense | None = None,
) -> Callable[[int], optuna.samplers.BaseSampler]:
    """Returns a function that makes the sampler, given the number of earlier proposals.

    Args:
        config: The config, for its `sampler` section.
        space: The search space.
        objectives: The study's objectives.
        candidates: The candidates to choose from; None takes all of the space.
        knowledge: Rows that were measured on other tasks.
        descriptors: Numeric descriptors of the present task, by name.
        low_fidelity: Evaluates candidates at low fidelity before their trials; None if that is not possible.
        baselines: The uncompressed model's value of each objective, in the column's unit; None if unknown.
        allocation: What an allocator is told of the layers; None where no knob belongs to layers.
        expense: What trials cost, where several share a training and the budget is time; else None.
    """

    @cache
    def listed() -> list[dict[str, Param]] | None:  # when a sampler is made: a dry run needs none
        return pool(space) if candidates is None else [params_of(space, c) for c in candidates]

    def make(n_proposed: int) -> optuna.samplers.BaseSampler:
        section: dict[str, Any] = dict(config.section("sampler"))
        if n_proposed and "seed" in section:
            # the same seed again would propose the first session's candidates again
            section["seed"] = int(digest_of(section["seed"], n_proposed), 16) % 2**31
        kinds = [optuna.samplers.BaseSampler]
        sampler: optuna.samplers.BaseSampler = instantiate(
            section, "sampler", config.trusted, kinds, seed=config.seed
        )
        if isinstance(sampler, Bindable):
            sampler.bind(
                SamplerContext(
                    pool=listed(),
                    knowledge=knowledge,
                    descriptors=descriptors or {},
                    directions=[o.direction for o in objectives],
                    draw=lambda rng: params_of(space, space.sample(rng)),
                    distributions={k.path: distribution_of(k.domain) for k in space.knobs},
                    low_fidelity=low_fidelity,
                    baselines=baselines,
                    expense=expense,
                    allocation=allocation,
                )
            )
        return sampler

    return make
