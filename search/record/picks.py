"""The choice of the model to ship, and what is to be said beside it: ties, and models that are no better than the float one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.column import Column
from evaluators.cost.latency.order import TIE, Ratio, ratio
from search.record.front import TIMED, TIMES, is_timed
from search.record.results import BASELINE, Constraint, DevicePick, Objective, TrialRecord, model_name

_SIZE = str(Column.of("file_bytes"))


def picks(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    devices: Sequence[str],
    baseline: Mapping[str, float],
    broken: Sequence[str] = (),
) -> tuple[DevicePick, ...]:
    """Returns, per device with a cost among the objectives, the model to ship there.

    If a constraint bounds the main objective (or its drop), it is the cheapest feasible model. Otherwise it
    is the cheapest one whose main objective lies within the best model's paired confidence interval. The rule of the tie: of all
    models that cost at most 3 % more than the cheapest, it is the best in the main objective, and of equally good ones the
    smallest file. Models whose timings leave open on which side of the 3 % they are, and that would be picked on the other
    one, are its rivals.

    Args:
        records: The models on the front, with the uncompressed one where it is there.
        objectives: The axes; the first one is the main objective.
        constraints: Limits that a feasible trial keeps.
        devices: Names of the devices.
        baseline: The uncompressed model's values by column.
        broken: Names of the constraints that the uncompressed model breaks.
    """
    device_picks = []
    for device in devices:
        axis = next(
            (o for o in objectives if Column.parse(o.column).device == device and o.direction == "minimize"),
            None,
        )
        if axis is None or not records:
            continue
        pool, why = _good_enough(records, objectives[0], constraints)
        choice = _choose(pool, axis.column, objectives[0])
        caveat = _caveat(choice.record, axis.column, baseline, broken)
        device_picks.append(
            DevicePick(
                device,
                choice.record.number,
                choice.why(why, Column.parse(axis.column).name),
                caveat,
                choice.rivals,
            )
        )
    return tuple(device_picks)


@dataclass(frozen=True)
class _Choice:
    """The model that the rule of the tie chooses.

    Attributes:
        record: The model.
        cheapest: The model of the lowest cost.
        advantage: What makes it better than the cheapest, as a clause.
        rivals: Numbers of the models that another run may choose.
    """

    record: TrialRecord
    cheapest: TrialRecord
    advantage: str
    rivals: tuple[int, ...]

    def why(self, pool: str, cost: str) -> str:
        """Returns the reason as a clause, e.g. `lowest latency among the models that meet every constraint`.

        Args:
            pool: What the models have in common that were chosen from, as a clause.
            cost: What the cost is called.
        """
        if self.record.number == self.cheapest.number:
            return f"lowest {_words(cost)} among the models {pool}"
        lowest = "fastest" if cost == TIMED else f"lowest {_words(cost)}"
        name = model_name(self.cheapest.number)
        return f"within {100 * TIE:.0f} % of the {lowest} ({name}) among the models {pool}, {self.advantage}"


def _choose(pool: Sequence[TrialRecord], column: str, main: Objective) -> _Choice:
    def key(record: TrialRecord) -> tuple[float, float, int]:
        return _main_loss(record, main), record.values().get(_SIZE, 0.0), record.number

    cheapest = min(pool, key=lambda r: (r.values()[column], r.number))
    lowest = cheapest.values()[column]
    chosen = min((r for r in pool if r.values()[column] <= lowest + TIE * abs(lowest)), key=key)
    is_open = {r.number for r in pool if _is_open(cost_ratio(r, cheapest, column))}
    rivals = [r.number for r in pool if r.number in is_open and key(r) < key(chosen)]
    if chosen is not cheapest and chosen.number in is_open:
        rivals.append(cheapest.number)
    return _Choice(chosen, cheapest, _advantage(key(chosen), key(cheapest), main), tuple(rivals))


def _advantage(own: tuple[float, float, int], other: tuple[float, float, int], main: Objective) -> str:
    if own[0] < other[0]:
        return f"with a better {Column.parse(main.column).short}"
    return "in a smaller file" if own[1] < other[1] else "and no worse in anything else"


def _is_open(beside: Ratio) -> bool:
    """Whether another timing may count a model among those within 3 % of the cheapest, or not."""
    return beside.low <= 1 + TIE < beside.high


def cost_ratio(record: TrialRecord, other: TrialRecord, column: str) -> Ratio:
    """Returns a model's cost over another's, with the interval over the rounds in which both were timed, if they were."""
    if record is not other and is_timed([record], column):
        timed = ratio(record.details.get(TIMES, ()), other.details.get(TIMES, ()))
        if timed is not None:
            return timed
    cost, of_other = record.values()[column], other.values()[column]
    value = 1.0 if cost == of_other else cost / of_other if of_other > 0 else float("inf")
    return Ratio(value, value, value)


def _caveat(chosen: TrialRecord, column: str, baseline: Mapping[str, float], broken: Sequence[str]) -> str:
    """Returns a sentence if the uncompressed model costs no more (within 3 %), else an empty text."""
    cost, before, now = _words(Column.parse(column).name), baseline.get(column), chosen.values()[column]
    if chosen.number == BASELINE or before is None or now < before / (1 + TIE):
        return ""
    but = f", which breaks {' and '.join(broken)}" if broken else ""
    if now <= before * (1 + TIE):
        return f"Its {cost} is no lower than the float model's (within 3 %){but}."
    times = f"{now / before:.2g} times" if before > 0 else "above"
    return f"Its {cost} is {times} that of the float model{but}."


def _words(cost: str) -> str:
    """Returns a cost's name without the unit of a time."""
    return cost.removesuffix("_ms")


def overall_best(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint],
    device_picks: Sequence[DevicePick],
) -> tuple[int | None, str]:  # fmt: skip
    """Returns the number of the one model to ship (None if there is none), and the reason as text."""
    if not records:
        return None, "no trial met the constraints"
    if device_picks:
        first = device_picks[0]
        return first.number, f"the pick for {first.device}: {first.why}"
    if len(objectives) == 1:
        best = min(records, key=lambda r: _main_loss(r, objectives[0]))
        return best.number, f"the best {objectives[0].column}"
    pool, why = _good_enough(records, objectives[0], constraints)
    second = objectives[1]
    if second.direction == "minimize":
        choice = _choose(pool, second.column, objectives[0])
        return choice.record.number, choice.why(why, second.column)
    best = max(pool, key=lambda r: r.values()[second.column])
    return best.number, f"highest {second.column} among the models {why}"


def _main_loss(record: TrialRecord, main: Objective) -> float:
    value = record.values()[main.column]
    return -value if main.direction == "maximize" else value


def _good_enough(
    records: Sequence[TrialRecord], main: Objective, constraints: Sequence[Constraint]
) -> tuple[list[TrialRecord], str]:
    """Returns the records with an acceptable main objective (see `picks`), and a clause describing them."""
    if any(c.column in (main.column, f"{main.column}_drop") for c in constraints):
        return list(records), "that meet every constraint"
    best = min(records, key=lambda r: _main_loss(r, main))
    values = best.values()
    drop = values.get(f"{main.column}_drop")
    high = values.get(f"{main.column}_drop_high")
    margin = high - drop if drop is not None and high is not None else 0.0
    pool = [r for r in records if _main_loss(r, main) <= _main_loss(best, main) + margin]
    name = Column.parse(main.column).short
    return pool, f"whose {name} is within noise of the best one's (within {margin:.2f})"
