from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from evaluators.base import Measurement
from search.record.results import Alias, Objective, TrialRecord
from search.report.findings.degraded import verdict
from search.report.report import report_html
from search.report.terminal import closing_table
from search.report.testing import fake_results
from spaces.candidate import Candidate

KNOB = "quantize.degraded_share"
SHARES = (0.0, 0.5)


def record(number, values, drop=None, top1=98.0, **more):
    measurements = [
        Measurement("top1", top1, "%", "measured"),
        Measurement("top1_drop", 98 - top1, "%", "measured"),
    ]
    if drop is not None:
        more = {"mean": drop, **more}
    measurements += [Measurement(f"robustness_drop_{k}", v, "%", "measured") for k, v in more.items()]
    return TrialRecord(number, "complete", "", Candidate(values), tuple(measurements))


def study(tmp_path, trials, **changes):
    return replace(
        fake_results(tmp_path, 0),
        trials=tuple(trials),
        knobs={KNOB: SHARES, "quantize.clip": tuple("abcdef")},
        objectives=(Objective("metric.top1", "maximize"),),
        **changes,
    )


def pairs(effect, effect_on_top1=0.0, spread=0.2, shares=SHARES):
    """A pair for each of six settings, whose own differences are larger than the knob's effect."""
    random = np.random.default_rng(0)
    trials = []
    for clip in "abcdef":
        base = random.normal(20, 5)
        for share in shares:
            change = (effect + random.normal(0, spread)) * (share > 0)
            top1 = 98 + (effect_on_top1 + random.normal(0, 0.01)) * (share > 0)
            trials.append(record(len(trials), {KNOB: share, "quantize.clip": clip}, base + change, top1))
    return trials


def test_it_did_not_help(tmp_path):
    text = verdict(study(tmp_path, pairs(0.0)))
    assert text.startswith(
        "Calibrating on degraded images did not help: over 6 pairs of trials that differ in nothing else, "
        "the relative drop on degraded images (mean) changed by "
    )
    assert " and clean top1 changed by " in text
    assert text.endswith("(mean change, 95 % t interval).")


def test_it_helped(tmp_path):
    text = verdict(study(tmp_path, pairs(-1.5)))
    assert text.startswith("Calibrating on degraded images helped: over 6 pairs")
    assert "(mean) changed by −1." in text


def test_it_helped_at_a_price(tmp_path):
    text = verdict(study(tmp_path, pairs(-1.5, effect_on_top1=-0.5)))
    assert text.startswith("Calibrating on degraded images helped, at a price on clean images: ")
    assert "clean top1 changed by −0.5" in text


def test_it_made_things_worse(tmp_path):
    text = verdict(study(tmp_path, pairs(1.5)))
    assert text.startswith("Calibrating on degraded images did not help, it made things worse: ")


def test_several_shares_of_a_setting_count_once(tmp_path):
    assert "over 6 pairs" in verdict(study(tmp_path, pairs(-1.5, shares=(0.0, 0.25, 0.5))))


def test_proposals_that_came_to_the_same_file_count(tmp_path):
    clean = [record(i, {KNOB: 0.0, "quantize.clip": c}, 20.0) for i, c in enumerate("abc")]
    aliases = tuple(Alias(Candidate({KNOB: 0.5, "quantize.clip": c}), i) for i, c in enumerate("ab"))
    text = verdict(study(tmp_path, clean, aliases=aliases))
    assert text.startswith("Calibrating on degraded images did not help: over 2 pairs")
    assert "changed by 0.00 pp [0.00, 0.00]" in text


def test_without_pairs_the_means_are_compared_and_reported_so(tmp_path):
    trials = [record(i, {KNOB: 0.0, "quantize.clip": "a", "x": i}, 20.0 + i % 2) for i in range(6)]
    trials += [record(i, {KNOB: 0.5, "quantize.clip": "b", "x": i}, 10.0 + i % 2) for i in range(6, 13)]
    text = verdict(study(tmp_path, trials))
    assert text.startswith("Calibrating on degraded images helped: between 7 trials with and 6 without, ")
    assert "which also differ in other knobs" in text


def test_a_single_pair_gives_no_verdict(tmp_path):
    assert "cannot be assessed from a single pair" in verdict(study(tmp_path, pairs(-5.0)[:2]))


def test_without_the_robustness_metric_nothing_is_claimed(tmp_path):
    trials = [
        record(i, {KNOB: share, "quantize.clip": clip})
        for i, (clip, share) in enumerate(product("abc", SHARES))
    ]
    text = verdict(study(tmp_path, trials))
    assert "helped" not in text
    assert "was evaluated on clean images only (evaluator=robustness" in text


def test_the_column_that_the_study_asks_for_decides(tmp_path):
    trials = [
        record(i, {KNOB: share, "quantize.clip": clip}, 20.0, worst=30.0 - 5 * (share > 0) + 0.1 * i)
        for i, (clip, share) in enumerate(product("abcd", SHARES))
    ]
    results = study(tmp_path, trials)
    assert verdict(results).startswith("Calibrating on degraded images did not help")
    asked = (Objective("metric.top1", "maximize"), Objective("metric.robustness_drop_worst", "minimize"))
    text = verdict(replace(results, objectives=asked))
    assert text.startswith("Calibrating on degraded images helped")
    assert "(worst) changed by −4.90 pp" in text


@pytest.mark.parametrize(
    ("keep", "text"),
    [(0.0, "evaluated with them"), (0.5, "evaluated without them"), (None, "no trial was evaluated")],
)
def test_missing_settings_are_named(tmp_path, keep, text):
    trials = [t for t in pairs(0.0) if t.candidate[KNOB] == keep]
    assert verdict(study(tmp_path, trials)).startswith(
        "Whether calibrating on degraded images helps cannot be determined"
    )
    assert text in verdict(study(tmp_path, trials))


def test_a_study_without_the_knob_says_nothing(tmp_path):
    assert verdict(fake_results(tmp_path)) == ""


def test_page_and_terminal_show_the_verdict(tmp_path):
    from rich.console import Console

    results = study(tmp_path, pairs(0.0))
    assert "Calibrating on degraded images did not help: over 6 pairs" in report_html(results)
    console = Console(width=400)
    with console.capture() as capture:
        console.print(closing_table(results))
    assert verdict(results) in capture.get()
