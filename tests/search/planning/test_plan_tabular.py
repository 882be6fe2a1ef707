"""Studies whose objective is a table."""

import csv
import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from rich.console import Console

from search.api import compose, run
from search.planning.plan_tabular import plan_tabular
from search.record.results import Constraint, Objective
from spaces.errors import ConfigError

BLOCKS = ("skip", "small", "large")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """27 networks: larger blocks are better and cost more, and one block more than another."""
    monkeypatch.chdir(tmp_path)
    lines = ["task,knob.block1,knob.block2,knob.block3,metric.top1,metric.macs,cost.board.latency_ms"]
    for blocks in itertools.product(BLOCKS, repeat=3):
        sizes = [BLOCKS.index(block) for block in blocks]
        macs = sum(size * (at + 2) for at, size in enumerate(sizes))
        top1 = 90 - 40 / (1 + sum(sizes)) + sizes[1]
        lines.append(f"net,{','.join(blocks)},{top1:.4f},{macs},{1 + macs / 4 + sizes[2]}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


BASE = ["experiment=tabular", "tabular.path=t.csv", "study.report=false", "study.storage=memory"]


def plan(*overrides):
    return plan_tabular(compose([*BASE, *overrides]))


def study(name, *overrides):
    record = run([*BASE, f"study.name={name}", *overrides], console=Console(file=io.StringIO())).record
    return record, json.loads((record.folder / "summary.json").read_text())


def test_one_metric_as_before(table):
    made = plan("tabular.metric=macs", "tabular.direction=minimize")
    assert made.objectives == (Objective("metric.macs", "minimize"),)
    assert made.constraints == ()
    assert made.volume is None
    assert made.notes == ()


def test_without_objectives_the_metric_is_the_one(table):
    """As experiments of one's own may say that were written for earlier versions."""
    config = compose(BASE)
    assert (
        plan_tabular(replace(config, data={**config.data, "objective": None})).objectives == plan().objectives
    )


def test_objectives_and_limits_are_those_of_any_study(table):
    made = plan(
        "tabular.metric=top1", "objective.minimize=[macs,latency_ms]", "+objective.constraints.latency_ms.max=4 ms",
        "+objective.constraints.good={measure: metric, min: 60}",
    )  # fmt: skip
    assert made.objectives == (
        Objective("metric.top1", "maximize"),
        Objective("metric.macs", "minimize"),
        Objective("cost.board.latency_ms", "minimize"),
    )
    assert made.constraints == (
        Constraint("latency_ms", "cost.board.latency_ms", "max", 4.0),
        Constraint("good", "metric.top1", "min", 60.0),
    )
    assert made.devices == ("board",)
    assert "share of the hypervolume of the table's front" in made.notes[0]
    (table / "conf" / "objective").mkdir(parents=True)
    (table / "conf" / "objective" / "mine.yaml").write_text(
        yaml.safe_dump({"maximize": ["top1"], "minimize": ["macs"]})
    )
    made = plan("objective=mine", "hydra.searchpath=[file://conf]")
    assert [o.column for o in made.objectives] == ["metric.top1", "metric.macs"]


def test_a_study_of_several_objectives_ends_with_the_whole_front(table):
    limits = ["+objective.constraints.fast={measure: latency_ms, max: 4.5}"]
    record, summary = study("all", "sampler=surrogate", "objective.minimize=[macs,latency_ms]", *limits)
    assert summary["ended"] == "the goal is reached"
    assert summary["hypervolume"] == pytest.approx(1.0)
    reached = [summary[f"trials_to_{share}%"] for share in (90, 95, 99)]
    assert reached == sorted(reached)
    assert reached[-1] <= summary["n_trials"] < 27
    everything, _ = study(
        "brute",
        "sampler=brute_force",
        "objective.minimize=[macs,latency_ms]",
        *limits,
        "tabular.stop_at_best=false",
    )
    assert len(everything.trials) == 27
    front = {tuple(sorted(everything.trial(n).candidate.items())) for n in everything.front}
    assert front == {tuple(sorted(record.trial(n).candidate.items())) for n in record.front}
    broken = [t for t in everything.trials if t.state == "infeasible"]
    assert {t.values()["cost.board.latency_ms"] > 4.5 for t in broken} == {True}
    assert all("above the limit of 4.5" in t.reason for t in broken)
    with (everything.folder / "pareto.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(everything.front)
    assert {"metric.top1", "metric.macs", "cost.board.latency_ms"} <= rows[0].keys()


def test_it_may_end_with_a_share_of_the_front(table):
    _, part = study("part", "sampler=random", "objective.minimize=[macs]", "tabular.stop_at_share=0.9")
    assert part["n_trials"] == part["trials_to_90%"]
    assert part["hypervolume"] >= 0.9


def test_known_columns_are_never_learned_and_their_limits_never_broken(table):
    overrides = [
        "objective.minimize=[macs]", "+objective.constraints.macs.max=7", "tabular.known=[macs]", "tabular.stop_at_best=false",
        "study.n_trials=8",
    ]  # fmt: skip
    record, _ = study("known", "sampler=surrogate", *overrides)
    assert {t.state for t in record.trials} == {"complete"}
    without, _ = study("random", "sampler=random", *overrides)
    assert "infeasible" in {t.state for t in without.trials}  # a sampler without `bind` is not told


def test_a_sample_of_a_space_is_searched_by_an_evolutionary_sampler(table):
    """A row in the place of a proposal counts in NSGA-II's population, or its search would be random."""
    rng = np.random.default_rng(0)
    # of 6,561, so that nearly every proposal is missing
    networks = np.unique(rng.integers(0, 3, (40, 8)), axis=0)
    lines = [f"net,{','.join(map(str, net))},{net.sum() + net[0]},{net @ range(8)}" for net in networks]
    header = ",".join(["task", *(f"knob.b{at}" for at in range(8)), "metric.top1", "metric.macs"])
    (table / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    changes = ["objective.minimize=[macs]", "tabular.stop_at_best=false"]
    nsga, _ = study("nsga", "sampler=nsga2", "sampler.population_size=4", *changes)
    # its first population is drawn by a random sampler of the same seed
    random, _ = study("random", "sampler=random", *changes)
    orders = [[t.candidate for t in record.trials] for record in (nsga, random)]
    assert orders[0][:2] == orders[1][:2]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("objective.minimize=[mac]", "'mac' in objective.minimize, among the columns of t.csv, line 1. Did you mean 'macs'"),
        ("+objective.constraints.flops.max=3", "'flops' in objective.constraints.flops, among the columns of t.csv"),
        ("+objective.constraints.macs.most=3", "Unknown key 'most' in objective.constraints.macs"),
        ("+objective.constraints.macs.max=-1", r"none of the 27 rows of task 'net' in t.csv keeps all limits. Nearest is line 2"),
        ("objective.maximize=[]", "must name at least one"),
        ("+objective.maximise=[top1]", "Unknown key 'maximise' in objective"),
        ("tabular.direction=up", "tabular.direction must be maximize or minimize, not 'up'"),
        ("tabular.known=[macs]", "metric.macs is neither an objective nor limited"),
        ("tabular.stop_at_share=95", "tabular.stop_at_share must be a share .* not 95"),
        ("tabular.stop_at_share=0", "tabular.stop_at_share must be"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_any_trial(table, override, text):
    with pytest.raises(ConfigError, match=text):
        plan(override)


def test_a_row_without_a_value_is_a_trial_that_fails(table):
    with (table / "t.csv").open("a") as file:
        file.write("net,skip,skip,none,70,,3\n")
    made = plan("objective.minimize=[macs]")
    assert made.notes[0] == "1 of 28 rows lack a value that objectives or limits need: their trials fail"
    assert plan().notes == ()
    results, _ = study("lacks", "objective.minimize=[macs]", "tabular.stop_at_best=false", "sampler=random")
    (failed,) = [trial for trial in results.trials if trial.state == "failed"]
    assert failed.candidate["block3"] == "none"
    assert failed.reason == "metric.macs is absent, but the study needs it"
    assert len(results.trials) == 28
