from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from search.record.results import BASELINE
from search.report.terminal import closing_table
from search.report.testing import fake_results


def printed(results, width=140):
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(closing_table(results))
    return console.file.getvalue()


def test_it_shows_the_baseline_the_front_and_the_picks(tmp_path):
    results = fake_results(tmp_path, 24)
    text = printed(results)
    assert "98.00 %" in text
    pick = results.picks[0]
    assert (
        f"Ship trial {pick.number} to host: {results.trial(pick.number).values()['metric.top1']:.2f} %"
        in text
    )
    lines = [line.split() for line in text.splitlines()]
    numbers = [int(words[0]) for words in lines if words and words[0].isdigit() and "pp" in words]
    assert numbers == [n for n in results.front if n in numbers]
    assert {pick.number, results.best} <= set(numbers)
    assert results.command in text


def test_paths_are_named_once_they_exist(tmp_path):
    results = fake_results(tmp_path / "o", 8)
    assert "report.html" not in printed(results, 400)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "report.html").write_text("x")
    assert str(tmp_path / "o" / "report.html") in printed(results, 400)


@pytest.mark.parametrize(
    ("n_trials", "devices", "top1_min"), [(0, ("a",), 94), (9, (), 94), (9, ("a",), 101)]
)
def test_odd_studies_are_summarised(tmp_path, n_trials, devices, top1_min):
    text = printed(fake_results(tmp_path, n_trials, devices, top1_min=top1_min), 60)
    assert ("The best is" in text) == (top1_min == 94 and n_trials > 0)
    assert ("No candidate met" in text) == (top1_min == 101)


def test_text_is_never_rich_markup(tmp_path):
    results = replace(fake_results(tmp_path, 8), command="paredown 'space.x=[red]' a=[/]")
    assert "[red]" in printed(results)
    assert "a=[/]" in printed(results)


def test_many_devices_get_a_row_each_and_a_sentence_per_model(tmp_path):
    devices = [f"board{i}" for i in range(12)]
    results = fake_results(tmp_path, 24, devices)
    text = printed(results, 100)
    lines = text.splitlines()
    for pick in results.picks:
        assert any(line.split()[:2] == [pick.device, str(pick.number)] for line in lines)
    assert sum(line.startswith("Ship trial") for line in lines) == len({p.number for p in results.picks})
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("width", [80, 100, 109])
def test_on_a_narrow_terminal_nothing_is_cut(tmp_path, width):
    """Also with an interval of a timing: every figure has its unit."""
    results = fake_results(tmp_path)
    ends = {"latency_ms_low": 0.9, "latency_ms_high": 1.1}
    timed = tuple(
        replace(t, measurements=(
            *t.measurements,
            *(replace(m, name=name, value=m.value * factor) for name, factor in ends.items()
              for m in t.measurements if m.name == "latency_ms" and m.source == "measured"),
        ))
        for t in results.trials
    )  # fmt: skip
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(closing_table(replace(results, trials=timed), width))
    text = console.file.getvalue()
    table = text[text.index("baseline") : text.index("Ship")]
    best = results.trial(results.best).values()
    assert "±10 %" in table
    assert table.count(" ms") >= 2 * 7
    assert f"{best['metric.top1']:.2f} %" in table
    assert table.count(" KiB") >= 2 * 7
    assert all(len(line) <= width for line in text.splitlines())


def test_the_float_model_stands_once_and_may_be_the_pick(tmp_path):
    results = fake_results(tmp_path)
    kept = replace(
        results,
        front=(BASELINE, *results.front),
        best=BASELINE,
        picks=tuple(
            replace(p, number=BASELINE, why="lowest latency among the models") for p in results.picks
        ),
    )
    text = printed(kept)
    assert text.count("baseline") == 1
    assert "Keep the float model on host" in text
    assert "-1" not in text


def test_warnings_of_the_health_checks_are_printed(tmp_path):
    results = fake_results(tmp_path)
    first, *others = results.picks
    close = replace(results, picks=(replace(first, rivals=(results.front[0],)), *others))
    assert "Check: The timings leave open whether" in printed(close)
    assert "Check: The timings" not in printed(results)


def test_knobs_are_shown_whole_or_not_at_all(tmp_path):
    many = fake_results(tmp_path, 24, ("host", "stm32h743", "another_board"))
    few = fake_results(tmp_path, 24, ("host",))
    knobs = ("ratio", "weight_bits", "granularity")
    assert all(name in printed(few).split() for name in knobs)
    assert sum(name in printed(many).split() for name in knobs) == 1
    assert "…" not in printed(few) + printed(many)
    assert all(len(line) <= 140 for line in (printed(few) + printed(many)).splitlines())
