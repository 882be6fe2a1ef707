import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.record.suggest import distribution_of, param_of, params_of, pool, suggest, value_of
from spaces.space_config import read_space

SPACE = read_space(
    {
        "scheme": ["a", "b"],
        "keep": [[], ["conv*", "fc"]],
        "bits": {"choices": [2, 4, 8], "ordered": True},
        "images": {"int": [16, 1024], "log": True},
        "width": {"int": [1, 8], "step": 3},
        "ratio": {"float": [0.1, 0.75], "step": 0.1},
        "percentile": {"float": [99.0, 99.999], "when": {"scheme": "b"}},
    }
)


@given(st.integers(0, 10_000))
def test_a_samplers_proposal_is_a_candidate_and_can_be_enqueued(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    candidate = suggest(trial, SPACE)
    SPACE.validate(candidate)
    assert params_of(SPACE, candidate) == pytest.approx(trial.params)
    study.enqueue_trial(params_of(SPACE, candidate))
    assert suggest(study.ask(), SPACE) == candidate


@pytest.mark.parametrize("knob", [k for k in SPACE.knobs if k.domain.size is not None], ids=lambda k: k.path)
def test_every_value_has_a_parameter_of_its_own(knob):
    params = [param_of(knob.domain, value) for value in knob.domain]
    assert len(set(params)) == knob.domain.size
    assert [value_of(knob.domain, p) for p in params] == list(knob.domain)
    assert all(
        distribution_of(knob.domain)._contains(distribution_of(knob.domain).to_internal_repr(p))
        for p in params
    )


def test_there_is_a_pool_for_finite_spaces_only():
    assert pool(SPACE) is None
    assert pool(read_space({"a": [1, 2], "b": ["x"]})) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
