import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost import summary_metrics as metrics
from spaces.errors import EvaluationError

POSITIVE = st.floats(0.01, 1e6)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20))
def test_throughput_times_time_is_what_was_written(runs):
    tokens, seconds = zip(*runs, strict=True)
    assert metrics.inference_throughput(tokens, seconds) * sum(seconds) == pytest.approx(sum(tokens))


def test_power_is_energy_over_time():
    assert metrics.average_power_w(500, 2) == 250


def test_latency_and_throughputs_by_hand():
    assert metrics.average_latency_s([1.0, 3.0]) == 2.0
    assert metrics.average_latency_s([1.0, 3.0], [0.5, 0.5]) == 2.5
    assert metrics.token_throughput([1000, 3000], [2, 2], 1e6) == pytest.approx(1e-3)
    assert metrics.sample_throughput([10, 30], [2, 2], 5) == pytest.approx(2)
    assert metrics.inference_throughput([100, 20], [4, 2]) == 20  # not the mean of 25 and 10


@given(POSITIVE, POSITIVE)
def test_an_uncompressed_model_has_rate_one(size, score):
    assert metrics.compression_rate(size, size, score, score) == pytest.approx(1)


def test_compression_rate_is_discounted_by_the_loss_in_score():
    # Qwen2.5-32B from 16 to 4 bits is reported with 3.69: four times smaller, at 92.25 % of the scores.
    assert metrics.compression_rate(16, 4, 1.0, 0.9225) == pytest.approx(3.69)
    assert metrics.compression_rate(16, 4, 0.8, 0.0) == 0


# ML.ENERGY benchmark, batch of 8 sequences: watts, milliseconds per token and sequence, measured joules per
# token.
@pytest.mark.parametrize(
    ("power_w", "token_ms", "measured_j"),
    [
        (486, 7.32, 0.455),
        (427, 8.20, 0.444),
        (443, 12.54, 0.706),
        (510, 23.43, 1.511),
        (538, 25.21, 1.726),
        (639, 4.57, 0.391),
        (860, 14.13, 1.545),
    ],
)
def test_joules_a_token_are_power_over_throughput(power_w, token_ms, measured_j):
    # The batch is not always full, so the modelled energy is a little below the measured one.
    joules = metrics.joules_per_token(power_w, 8 / (token_ms * 1e-3))
    assert 0.93 * measured_j < joules < measured_j


def test_intelligence_is_a_ratio_of_means():
    assert metrics.intelligence_per_watt([1, 0, 1, 1], [200, 300, 200, 300]) == pytest.approx(0.75 / 250)
    assert metrics.intelligence_per_joule(0.75, [1000, 2000]) == pytest.approx(0.75 / 1500)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: metrics.average_power_w(-1, 1), "energy_j"),
        (lambda: metrics.average_power_w(1, 0), "time_s"),
        (lambda: metrics.average_latency_s(["a"]), "compute_s: expected numbers"),
        (lambda: metrics.average_latency_s([float("nan")]), "compute_s"),
        (lambda: metrics.average_latency_s([]), "compute_s"),
        (lambda: metrics.average_latency_s([1], [1, 2]), "communication_s"),
        (lambda: metrics.inference_throughput([1], [1, 2]), "n_generated"),
        (lambda: metrics.inference_throughput([1], [0]), "times_s"),
        (lambda: metrics.token_throughput([1], [1], 0), "n_parameters"),
        (lambda: metrics.compression_rate(1, 0, 1, 1), "compressed_bytes"),
        (lambda: metrics.compression_rate(1, 1, 0, 1), "original_score"),
        (lambda: metrics.joules_per_token(1, 0), "tokens_per_s"),
        (lambda: metrics.intelligence_per_watt([], 1), "accuracy"),
        (lambda: metrics.intelligence_per_watt(1, 0), "power_w"),
        (lambda: metrics.intelligence_per_joule(1, 0), "query_j"),
    ],
)
def test_errors_name_the_argument(call, argument):
    with pytest.raises(EvaluationError, match=argument):
        call()
