"""Makes the sampler that a config names, and tells it what is known beforehand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from search.planning.config.instantiate import instantiate
from search.planning.config.schema import Config
from search.record.results import Objective
from search.record.suggest import Param, distribution_of, params_of, pool
from search.samplers.candidates.context import Bindable, KnowledgeRow, LowFidelityEvaluations, SamplerContext
from spaces.candidate import Candidate
from spaces.digest import digest_of
from spaces.errors import ConfigError
from spaces.space import Space


def sampler_factory(
    config: Config,
    space: Space,
    objectives: Sequence[Objective],
    candidates: Sequence[Candidate] | None = None,
    knowledge: Sequence[KnowledgeRow] = (),
    descriptors: Mapping[str, float] | None = None,
    low_fidelity: LowFidelityEvaluations | None = None,
    baselines: Sequence[float | None] = (),
) -> Callable[[int], optuna.samplers.BaseSampler]:
    """Returns a function that makes the sampler, given the number of earlier proposals.

    Args:
        config: The config, for its `sampler` section.
        space: What may vary.
        objectives: Axes of the front.
        candidates: The only candidates that there are; None takes the space's.
        knowledge: Measurements of other tasks.
        descriptors: Of the present task.
        low_fidelity: What can be told of a candidate before its trial.
        baselines: What the uncompressed model has, per objective, raw; None where it is unknown.
    """
    listed: list[dict[str, Param]] | None = (
        pool(space) if candidates is None else [params_of(space, c) for c in candidates]
    )

    def make(n_proposed: int) -> optuna.samplers.BaseSampler:
        section: dict[str, Any] = dict(config.section("sampler"))
        if n_proposed and "seed" in section:
            # the same seed again would propose the first session's candidates again
            section["seed"] = int(digest_of(section["seed"], n_proposed), 16) % 2**31
        sampler = instantiate(section, "sampler", config.trusted, seed=config.seed)
        if not isinstance(sampler, optuna.samplers.BaseSampler):
            raise ConfigError(f"sampler._target_: {section['_target_']!r} is no optuna.samplers.BaseSampler")
        if isinstance(sampler, Bindable):
            sampler.bind(
                SamplerContext(
                    pool=listed,
                    knowledge=knowledge,
                    descriptors=descriptors or {},
                    directions=[o.direction for o in objectives],
                    draw=lambda rng: params_of(space, space.sample(rng)),
                    distributions={k.path: distribution_of(k.domain) for k in space.knobs},
                    low_fidelity=low_fidelity,
                    baselines=baselines,
                )
            )
        return sampler

    return make
