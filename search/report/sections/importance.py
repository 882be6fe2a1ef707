"""The section on what mattered: how much each objective depends on each knob, as far as that can be told."""

from search.record.results import StudyRecord
from search.report.findings import degraded
from search.report.findings.figures import label
from search.report.findings.forest import TREES, Importance, importance
from search.report.page.bars import Bar, bars
from search.report.page.markup import Section, esc
from search.report.sections.effects import effects

_MOST_BARS = 15
_LEAST_R2 = 0.5  # of the variance over the trials; below, a ranking is a matter of chance
_LEAST_SHARE = 0.01
_METHOD = (
    f"Share of the total permutation importance: how much worse a random forest ({TREES} trees) predicts the "
    "objective of held-out trials once the knob's values are shuffled among the trials where the knob is active "
    f"(Breiman 2001, 5 folds, 10 shuffles; the whiskers are one standard error over the folds). All layers of a "
    f"per-layer knob count as one knob. Only objectives are shown of which the forest predicts at least {_LEAST_R2:.0%} of the "
    "variance, and knobs with at least 1 %. The importance refers to the trials of this search; it does not say which "
    "value is better."
)


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if nothing can be told."""
    rankings = {o.column: importance(results.trials, o.column) for o in results.objectives}
    told = {c: r for c, r in rankings.items() if not r.reason and (r.r2 or 0.0) >= _LEAST_R2}
    drawn = [_bars(label(column, with_device=True), r) for column, r in told.items()]
    ranked = f'<div class="grid">{"".join(drawn)}</div><p class="method">{esc(_METHOD)}</p>' if drawn else ""
    sentence = degraded.verdict(results)
    finding = f'<p class="finding">{esc(sentence)}</p>' if sentence else ""
    body = finding + ranked + effects(results)
    return Section("mattered", "What mattered", "", body) if body else None


def _bars(name: str, ranking: Importance) -> str:
    largest = max(ranking.shares[k] + ranking.spreads[k] for k in ranking.shares) or 1.0
    rows = [
        Bar(
            knob,
            share / largest,
            f"{100 * share:.0f} %",
            ((share - ranking.spreads[knob]) / largest, (share + ranking.spreads[knob]) / largest),
        )
        for knob, share in list(ranking.shares.items())[:_MOST_BARS]
        if share >= _LEAST_SHARE
    ]
    return bars(f"{name} ({ranking.n_trials} trials, cross-validated R² {ranking.r2:.2f})", rows)
