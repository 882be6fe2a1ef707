"""Summary metrics of a measured run of a language model.

Six metrics of Yuan et al. 2025, "EfficientLLM: efficiency in large language models" (arXiv 2505.13840): memory and
compute utilisation, latency, throughput, power, compression. Intelligence per watt and per joule: Saad-Falcon et al.
2025 (arXiv 2511.07885). Samples are pairs of a time stamp and a value; integrals use the trapezoidal rule.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluators.devices.arguments import number, positive
from spaces.errors import EvaluationError


def time_average(times_s: ArrayLike, values: ArrayLike, name: str = "values") -> float:
    """Returns (1 / T) times the integral of `values` over time, by the trapezoidal rule.

    Args:
        times_s: Strictly increasing time stamps in seconds, `(n,)` with n >= 2.
        values: Value at each time stamp, `(n,)`.
        name: Name of the values in error messages.

    Raises:
        EvaluationError: Fewer than two samples, time stamps that do not increase, or negative or non-finite
            values.
    """
    times, samples = _vector(times_s, "times_s"), _vector(values, name)
    if times.size < 2 or times.size != samples.size:
        raise EvaluationError(
            f"times_s and {name}: expected at least two samples of each, as many of one as of the other, got "
            f"{times.size} and {samples.size}"
        )
    if (np.diff(times) <= 0).any():
        raise EvaluationError("times_s: every time stamp must be later than the one before")
    return float(np.trapezoid(samples, times) / (times[-1] - times[0]))


def average_memory_utilisation(
    times_s: ArrayLike, used_bytes: ArrayLike, total_bytes: float | None = None
) -> float:
    """AMU = (1 / T) integral of used memory: mean bytes, or mean fraction of `total_bytes` if given.

    Raises:
        EvaluationError: Malformed samples, or a total that is not above 0.
    """
    used = time_average(times_s, used_bytes, "used_bytes")
    return used if total_bytes is None else used / positive(total_bytes, "total_bytes")


def peak_compute_utilisation(times_s: ArrayLike, used: ArrayLike, peak: float = 1.0) -> float:
    """PCU = (1 / T) integral of used compute over peak compute.

    Args:
        times_s: Time stamps in seconds, `(n,)`.
        used: Compute in use at each time stamp, in the unit of `peak`, e.g. fractions or operations per
            second.
        peak: Peak compute of the hardware.

    Raises:
        EvaluationError: Malformed samples, or a peak that is not above 0.
    """
    return time_average(times_s, used, "used") / positive(peak, "peak")


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


def average_power_w(times_s: ArrayLike, power_w: ArrayLike) -> float:
    """AEC (average energy consumption) = (1 / T) integral of power, which is a mean power in watts.

    Raises:
        EvaluationError: Malformed samples.
    """
    return time_average(times_s, power_w, "power_w")


def energy_j(times_s: ArrayLike, power_w: ArrayLike) -> float:
    """Energy of the run in joules: average power times duration.

    Raises:
        EvaluationError: Malformed samples.
    """
    times = _vector(times_s, "times_s")
    return average_power_w(times, power_w) * float(times[-1] - times[0])


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
