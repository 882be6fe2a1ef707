"""Summary metrics of a measured run of a language model.

Yuan et al. 2025, "EfficientLLM: efficiency in large language models" (arXiv 2505.13840): latency, throughput, power, compression.
Intelligence per watt and per joule: Saad-Falcon et al. 2025 (arXiv 2511.07885).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.devices.arguments import number, positive
from spaces.errors import EvaluationError


def average_latency_s(compute_s: ArrayLike, communication_s: ArrayLike | None = None) -> float:
    """AL = sum of (compute time + communication time) over the number of requests, in seconds.

    Args:
        compute_s: Compute time of each request, `(n,)`.
        communication_s: Communication time of each request, `(n,)`; None means 0.

    Raises:
        EvaluationError: No requests, lists of different lengths, or a time that is negative or not finite.
    """
    compute = _vector(compute_s, "compute_s")
    other = np.zeros_like(compute) if communication_s is None else _vector(communication_s, "communication_s")
    if not compute.size or compute.size != other.size:
        raise EvaluationError(
            f"compute_s and communication_s: expected one time for each request, got {compute.size} and {other.size}"
        )
    return float((compute + other).sum() / compute.size)


def token_throughput(n_tokens: ArrayLike, times_s: ArrayLike, n_parameters: float) -> float:
    """TT = sum of (tokens / parameters) over the sum of times: training tokens per second and parameter.

    Raises:
        EvaluationError: Counts and times differ in length, or a value is out of range.
    """
    return _rate(n_tokens, times_s, "n_tokens") / positive(n_parameters, "n_parameters")


def sample_throughput(n_samples: ArrayLike, times_s: ArrayLike, n_parameters: float) -> float:
    """ST = sum of (samples / parameters) over the sum of times: training samples per second and parameter.

    Raises:
        EvaluationError: Counts and times differ in length, or a value is out of range.
    """
    return _rate(n_samples, times_s, "n_samples") / positive(n_parameters, "n_parameters")


def inference_throughput(n_generated: ArrayLike, times_s: ArrayLike) -> float:
    """IT = sum of generated tokens over the sum of times, in tokens per second.

    Raises:
        EvaluationError: Counts and times differ in length, or a value is out of range.
    """
    return _rate(n_generated, times_s, "n_generated")


def average_power_w(energy_j: float, time_s: float) -> float:
    """AEC (average energy consumption) = (1 / T) integral of power, which is a mean power in watts: a counter's joules over the time.

    Raises:
        EvaluationError: Negative energy, or a time that is not above 0.
    """
    return number(energy_j, "energy_j") / positive(time_s, "time_s")


def compression_rate(
    original_bytes: float, compressed_bytes: float, original_score: float, compressed_score: float
) -> float:
    """MCR = (original size / compressed size) x (compressed score / original score); 1 without compression.

    Raises:
        EvaluationError: A size or the original score is not above 0, or the compressed score is negative.
    """
    sizes = positive(original_bytes, "original_bytes") / positive(compressed_bytes, "compressed_bytes")
    kept = number(compressed_score, "compressed_score") / positive(original_score, "original_score")
    return sizes * kept


def joules_per_token(power_w: float, tokens_per_s: float) -> float:
    """Energy of one generated token: average power over throughput, in joules.

    Raises:
        EvaluationError: Negative power, or a throughput that is not above 0.
    """
    return number(power_w, "power_w") / positive(tokens_per_s, "tokens_per_s")


def intelligence_per_watt(accuracy: ArrayLike, power_w: ArrayLike) -> float:
    """IPW = mean accuracy / mean power of a query, in 1 / W.

    Args:
        accuracy: Score of each query, `(n,)`, or their mean.
        power_w: Power during each query, `(n,)`, or their mean.

    Raises:
        EvaluationError: No values, a negative one, or no power at all.
    """
    return _mean(accuracy, "accuracy") / positive(_mean(power_w, "power_w"), "power_w")


def intelligence_per_joule(accuracy: ArrayLike, query_j: ArrayLike) -> float:
    """IPJ = mean accuracy / mean energy of a query, in 1 / J.

    Args:
        accuracy: Score of each query, `(n,)`, or their mean.
        query_j: Energy of each query, `(n,)`, or their mean.

    Raises:
        EvaluationError: No values, a negative one, or no energy at all.
    """
    return _mean(accuracy, "accuracy") / positive(_mean(query_j, "query_j"), "query_j")


def _rate(counts: ArrayLike, times_s: ArrayLike, name: str) -> float:
    done, times = _vector(counts, name), _vector(times_s, "times_s")
    if not done.size or done.size != times.size:
        raise EvaluationError(
            f"{name} and times_s: expected one duration for each count, got {done.size} and {times.size}"
        )
    return float(done.sum()) / positive(float(times.sum()), "times_s")


def _mean(values: ArrayLike, name: str) -> float:
    given = _vector(values, name)
    if not given.size:
        raise EvaluationError(f"{name}: expected at least one value, got none")
    return float(given.mean())


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        given = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{name}: expected numbers, got {values!r}") from error
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any():
        raise EvaluationError(
            f"{name}: expected a list of finite numbers that are not negative, got {values!r}"
        )
    return given
