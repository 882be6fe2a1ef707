"""Health of a study: what makes its advice doubtful, as far as that can be told from its figures, and what to do about it.

After the health checks of Ax (ax.dev, analysis/healthcheck): each gives a status and the next step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluators.column import Column
from evaluators.task.guess import GUESSED
from search.record.results import BASELINE, Constraint, StudyRecord, TrialRecord, model_name
from search.report.findings import numbers
from search.report.findings.figures import (
    Figure,
    change,
    direction,
    figure,
    headline_metric,
    label,
    on_test,
    unit_of,
)
from search.report.findings.noise import is_above_noise

Status = Literal["ok", "warning", "unknown"]
_SATURATED = 0.9  # share of the trials that lose nothing that can be told
_WIDE = 0.5  # relative error of a modelled figure


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        status: `ok`, `warning`, or `unknown` where it cannot be told.
        text: What was found, in sentences.
        next_step: What to do about it, in a sentence; empty if nothing.
    """

    name: str
    status: Status
    text: str
    next_step: str = ""


def checks(results: StudyRecord) -> tuple[Check, ...]:
    """Returns the checks that apply to a study: of a single measured trial at least."""
    if not any(t.measurements for t in results.trials):
        return ()
    found = (check(results) for check in _CHECKS)
    return tuple(check for check in found if check is not None)


def validation_leak(results: StudyRecord) -> Check | None:
    """Whether the validation split is one that the model was trained on.

    A network does much better on examples that it was trained on. The float model is not selected by the search, so that
    its metric should be the same on validation and test but for the drawing of examples: a warning is given if the two
    95 % intervals do not overlap and validation is better. Two intervals that just touch have p of about 0.006. Limits: a
    difference within the intervals is not seen, nor a network that was trained on the test split too; splits
    that come from different sources may differ without any leak. Exact copies of training examples are found where the
    task knows its training split.
    """
    metric = headline_metric(results)
    copies = [note for note in results.notes if "exact cop" in note and "train" in note]
    if copies:
        step = "Remove the copies from the validation split, or trust the test split only."
        return Check("validation leak", "warning", f"{numbers.capitalized(copies[0])}.", step)
    if metric is None:
        return None
    validation, test = figure(results.baseline, metric), figure(results.baseline, on_test(metric))
    seen, unseen = _ends(validation), _ends(test)
    if validation is None or test is None or seen is None or unseen is None:
        return None
    name = label(metric)
    both = f"validation {validation.full}, test {test.full}"
    higher_is_better = direction(results, metric) == "maximize"
    if seen[0] > unseen[1] if higher_is_better else seen[1] < unseen[0]:
        return Check(
            "validation leak",
            "warning",
            f"The float model's {name} is better on validation than on test beyond both intervals ({both}): it was probably "
            "trained on the validation examples, so that losses of compression are underestimated there.",
            "Trust the test figures, and give the task a validation split that the checkpoint has not seen.",
        )
    text = f"The float model's {name} does not differ between the splits beyond both intervals ({both})."
    if _is_given_checkpoint(results.config):
        text += " The checkpoint was trained elsewhere; a smaller leak would not show."
    return Check("validation leak", "ok", text)


def _ends(shown: Figure | None) -> tuple[float, float] | None:
    if shown is None or shown.low is None or shown.high is None:
        return None
    return shown.low, shown.high


def _is_given_checkpoint(config: Mapping[str, object]) -> bool:
    model = config.get("model")
    return isinstance(model, Mapping) and bool(model.get("checkpoint") or model.get("path"))


def float_model(results: StudyRecord) -> Check | None:
    """Whether the float model tells more of the labels than a guess; nothing is said where it does."""
    notes = [note for note in results.notes if GUESSED in note]
    if not notes:
        return None
    step = "Run the float model on a few examples whose label you know, prepared as the box Deploy says, before any figure here is used."
    return Check("float model", "warning", f"{numbers.capitalized(notes[0])}", step)


def limits_on_test(results: StudyRecord) -> Check | None:
    """Whether the picks keep limits on the metric on the test split, too.

    The search chose them by validation examples; the best of many is partly so by chance (the winner's curse), and is worse on
    examples that it was not chosen by.
    """
    limits = [c for c in results.constraints if Column.parse(c.column).device is None]
    picks = [results.trial(n) for n in dict.fromkeys(pick.number for pick in results.picks)]
    tested = [
        (record, limit, found)
        for record in picks
        for limit in limits
        if (found := figure(record.measurements, on_test(limit.column))) is not None
    ]
    if not tested:
        return None
    name = "limits on unseen data"
    broken = [(r, c, f) for r, c, f in tested if c.excess(f.value) > 0]
    if not broken:
        return Check(name, "ok", "The picks keep the limits on the metric on the test split, too.")
    texts = [
        f"{numbers.capitalized(model_name(r.number))}: {label(c.column)} is {f.full} on test, beyond the limit of "
        f"{numbers.quantity(c.limit, f.unit)} that it kept on validation."
        for r, c, f in broken
    ]
    return Check(name, "warning", " ".join(texts), _more_room(results, [c for _, c, _ in broken]))


def _more_room(results: StudyRecord, limits: Sequence[Constraint]) -> str:
    """Returns what to do about limits that are broken on the test split."""
    columns = [(c, on_test(c.column)) for c in limits]
    values = {n: results.trial(n).values() for n in results.front}
    kept = [
        n for n, v in values.items() if all(col in v and c.excess(v[col]) <= 0 for c, col in columns)
    ]  # fmt: skip
    step = "Give the limit a margin, recover for more epochs, or give the task more validation examples."
    if not kept:
        return step
    named = numbers.listing([model_name(n) for n in kept[:3]])
    return f"{step} On the front {named} {'keeps' if len(kept) == 1 else 'keep'} it on test."


def noise_against_differences(results: StudyRecord) -> Check | None:
    """Whether the models on the front differ by more than the noise of their figures."""
    if len(results.front) < 2:
        return None
    front = [results.trial(n) for n in results.front]
    same = [o.column for o in results.objectives if not is_above_noise(front, o.column)]
    noisy = [
        c
        for c in same
        if _sources(results, c)
        == {"measured"}  # the error of a modelled figure is no noise: see `modelled_figures`
        and any(f"{c}{end}" in t.values() for t in front for end in ("_low", "_drop_low"))
    ]
    rivals = {n for pick in results.picks for n in pick.rivals}
    if rivals:
        named = numbers.listing([model_name(n) for n in sorted(rivals)])
        return Check(
            "noise against differences",
            "warning",
            f"The timings leave open whether {named} should be the pick: the difference is as small as their noise.",
            "Treat them as equals, or run again on a machine without other load.",
        )
    if not noisy:
        return Check("noise against differences", "ok", "The models on the front differ by more than noise.")
    names = numbers.listing([label(c, with_device=True) for c in noisy])
    return Check(
        "noise against differences",
        "warning",
        f"On the front, differences in {names} are within noise.",
        f"Do not choose among its models by these; {_what_tells(noisy)} would tell smaller differences.",
    )


def _what_tells(columns: Sequence[str]) -> str:
    """Returns what makes the noise of columns smaller: a cost's is that of timings."""
    is_cost = {Column.parse(c).device is not None for c in columns}
    ways = {False: "more validation examples", True: "a machine without other load"}
    return " and ".join(text for kind, text in ways.items() if kind in is_cost)


def saturated_metric(results: StudyRecord) -> Check | None:
    """Whether nearly all trials lose nothing that can be told from zero, so that the metric decides nothing."""
    metric = headline_metric(results)
    if metric is None:
        return None
    changes = [c for t in results.trials if t.state == "complete" and (c := change(results, t, metric))]
    bounded = [ends for c in changes if (ends := _ends(c)) is not None]
    if len(bounded) < 5:
        return None
    n_equal = sum(low <= 0 <= high for low, high in bounded)
    text = f"{n_equal} of {len(bounded)} trials that kept every limit differ from the float model in {label(metric)} by no more than noise."
    if n_equal < _SATURATED * len(bounded):
        return Check("saturated metric", "ok", text)
    step = (
        "Fewer bits, more pruning, a harder task or more validation examples would tell the candidates apart."
    )
    return Check("saturated metric", "warning", text, step)


def modelled_figures(results: StudyRecord) -> Check | None:
    """Whether modelled costs are far from the measured ones of the same column, or how far they may be."""
    modelled = [o.column for o in results.objectives if _sources(results, o.column) == {"modelled"}]
    mixed = [o.column for o in results.objectives if len(_sources(results, o.column)) > 1]
    if mixed:
        return _mixed(results, mixed[0])
    errors = {c: e for c in modelled if (e := _relative_error(results, c)) is not None}
    latencies = [c for c in modelled if Column.parse(c).name in ("latency_ms", "energy_uj")]
    unknown = [c for c in latencies if c not in errors]
    step = "Measure the pick on the device before it is shipped; paredown-profile fits a profile to such measurements."
    if unknown:
        names = numbers.listing([label(c, with_device=True) for c in unknown])
        return Check(
            "modelled figures", "unknown", f"How far {names} is from measurements is not known.", step
        )
    if not errors:
        return None
    texts = [f"{label(c, with_device=True)} within about {100 * e:.0f} %" for c, e in errors.items()]
    text = f"Modelled, from networks with measurements: {numbers.listing(texts)} (8 of 10)."
    return Check("modelled figures", "warning" if max(errors.values()) > _WIDE else "ok", text, step)


def _mixed(results: StudyRecord, column: str) -> Check:
    name = label(column, with_device=True)
    text = f"{numbers.capitalized(name)} is measured of some models and modelled of others, which are not comparable."
    return Check("modelled figures", "warning", text, "Give the device one evaluator for this figure.")


def _sources(results: StudyRecord, column: str) -> set[str]:
    records = (results.baseline, *(t.measurements for t in results.trials if t.state == "complete"))
    return {m.source for measurements in records for m in measurements if m.column == column}


def _relative_error(results: StudyRecord, column: str) -> float | None:
    """Returns the error e of a modelled figure whose bounds are value / (1 + e) and value / (1 - e)."""
    for record in (results.baseline, *(t.measurements for t in results.trials)):
        now = figure(record, column)
        if now is not None and now.low and now.value > 0:
            return now.value / now.low - 1
    return None


def few_examples(results: StudyRecord) -> Check | None:
    """Whether the interval of an unchanged model is narrower than the limit on the drop, or than 1 point of a percentage."""
    metric = headline_metric(results)
    if metric is None:
        return None
    drop = f"{metric}_drop"
    halves = [h for r in _unchanged(results) if (h := _half(r, drop)) is not None]
    unit = unit_of(results, metric)
    limit = next((c.limit for c in results.constraints if c.column == drop and c.kind == "max"), None)
    allowed = limit if limit is not None and limit > 0 else 1.0 if unit == "%" else None
    if not halves or allowed is None:
        return None
    half = min(halves)
    than = "the limit on the drop" if limit else "1 pp"
    points = numbers.quantity(half, "pp" if unit == "%" else unit)
    text = f"A change of {label(metric)} on validation is known to about ±{points}"
    if half <= allowed:
        return Check("number of examples", "ok", f"{text}, no more than {than}.")
    times = f"{(half / allowed) ** 2:.2g}"
    return Check(
        "number of examples",
        "warning",
        f"{text}, more than {than}.",
        f"About {times} times as many validation examples (task.validation) would decide it.",
    )


def _unchanged(results: StudyRecord) -> list[TrialRecord]:
    """Returns the float model, and the trials with its metric: their intervals are the narrowest."""
    return [results.trial(BASELINE), *(t for t in results.trials if t.state == "complete")]


def _half(record: TrialRecord, drop: str) -> float | None:
    values = record.values()
    low, high = values.get(f"{drop}_low"), values.get(f"{drop}_high")
    return None if low is None or high is None else (high - low) / 2


def repeatability(results: StudyRecord) -> Check | None:
    """Whether another run with the same seed would try the same candidates: it does not if timings steer the sampler."""
    timed = [o.column for o in results.objectives if _sources(results, o.column) == {"measured"}]
    timed = [c for c in timed if Column.parse(c).name == "latency_ms"]
    if not timed:
        return None
    names = numbers.listing([label(c, with_device=True) for c in timed])
    text = f"{numbers.capitalized(names)} is timed, and the sampler proposes by it: the same seed may try other candidates."
    n_rounds = max((len(results.trial(n).details.get("timed_ms", ())) for n in results.front), default=0)
    if n_rounds:
        text += f" The pick itself was timed in turns with its rivals, {n_rounds} rounds."
    return Check("repeatability", "ok", text)


_CHECKS: tuple[Callable[[StudyRecord], Check | None], ...] = (
    float_model,
    validation_leak,
    limits_on_test,
    noise_against_differences,
    saturated_metric,
    modelled_figures,
    few_examples,
    repeatability,
)
