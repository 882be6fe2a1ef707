"""The rows of a task of a table."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.api import run
from search.planning.tabular.problem import TabularProblem
from spaces.candidate import Candidate
from spaces.errors import ConfigError
from spaces.space_config import read_space

TABLES = Path(__file__).parents[4].parent / "shared" / "data" / "tables"
TEXT = """task,task.size,knob.bits,knob.scheme,knob.clip,metric.top1,metric.ms
a,3,8,kl,0.5,70,3
a,3,4,max,,71.05,2
a,3,4,kl,0.9,70.62,1
a,3,2,kl,0.1,10,1
b,5,8,kl,0.5,60,
b,5,8,max,,61,9
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT)
    return tmp_path / "t.csv"


def test_space(path):
    config = TabularProblem(path, "a").space_config()
    assert config == {
        "bits": {"choices": [2, 4, 8]},
        "scheme": {"choices": ["kl", "max"]},
        "clip": {"choices": [0.1, 0.5, 0.9, None]},
    }
    assert read_space(config).size.count == 3 * 2 * 4


def test_many_numbers_are_a_range(tmp_path):
    lines = [f"a,{at},{at / 40},{at % 3},{at}" for at in range(40)]
    (tmp_path / "t.csv").write_text(
        "\n".join(["task,knob.width,knob.ratio[conv.1],knob.bits,metric.top1", *lines])
    )
    problem = TabularProblem(tmp_path / "t.csv")
    assert problem.space_config() == {
        "width": {"int": [0, 39]},
        "ratio[conv.1]": {"float": [0.0, 0.975]},
        "bits": {"choices": [0, 1, 2]},
    }
    for row in problem.candidates:
        problem.space().validate(Candidate(row))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "surrogate", "random"])
def test_a_table_of_numbers_is_searched_by_every_sampler(tmp_path, sampler):
    rng = np.random.default_rng(0)
    rows = [f"a,{x:.4f},{y:.4f},{-((x - 0.3) ** 2) - (y - 0.6) ** 2:.5f}" for x, y in rng.random((60, 2))]
    (tmp_path / "t.csv").write_text("\n".join(["task,knob.x,knob.y,metric.score", *rows]))
    run(
        [
            "experiment=tabular", f"tabular.path={tmp_path / 't.csv'}", f"sampler={sampler}", "study.n_trials=60",
            f"study.dir={tmp_path / 'out'}", "study.report=false", "study.storage=memory", "tracker=none",
        ]
    )  # fmt: skip
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    with (tmp_path / "out/trials.csv").open(newline="") as file:
        measured = {(row["knob.x"], row["knob.y"]) for row in csv.DictReader(file)}
    assert len(measured) == summary["n_complete"] < 60  # each row once, until the best was found


def test_row(path):
    problem = TabularProblem(path, "a")
    assert problem.values(problem.row({"bits": 4, "scheme": "kl", "clip": 0.9})) == {
        "metric.top1": 70.62,
        "metric.ms": 1.0,
    }
    assert problem.row({"bits": 4, "scheme": "max"}).line == 3  # an inactive knob left out
    assert problem.row({"bits": 2, "scheme": "max", "clip": None}) is None
    assert all(problem.row(candidate) for candidate in problem.candidates)


def test_the_float_model_s_result_is_read(tmp_path):
    (tmp_path / "t.csv").write_text(
        "task,knob.bits,metric.top1,metric.top1_fp32\na,8,70,71\na,4,60,71\nb,8,50,52\nb,4,40,\n"
    )
    problem = TabularProblem(tmp_path / "t.csv", "a")
    assert problem.baseline("metric.top1") == 71.0
    assert [row.baseline for row in problem.knowledge("metric.top1")] == [52.0, None]
    assert problem.measured.baseline["metric.top1"].value == 71.0


def test_no_float_model_is_made_up(path):
    problem = TabularProblem(path, "a")
    assert problem.baseline("metric.top1") is None
    assert [row.baseline for row in problem.knowledge("metric.top1")] == [None, None]
    assert not problem.measured.baseline


def test_knowledge_is_the_other_tasks(path):
    problem = TabularProblem(path, "a")
    assert [(row.task, row.value, dict(row.descriptors)) for row in problem.knowledge("metric.top1")] == [
        ("b", 60.0, {"size": 5.0}),
        ("b", 61.0, {"size": 5.0}),
    ]
    assert dict(problem.descriptors) == {"size": 3.0}
    assert [row.value for row in problem.knowledge("metric.ms")] == [9.0]


def test_objectives_may_name_metrics_and_costs_of_devices(tmp_path):
    (tmp_path / "t.csv").write_text(
        "task,knob.a,metric.m,cost.board.latency_ms,cost.my.chip.latency_ms,baseline.cost.board.latency_ms,other\n"
        "t,1,2,3,4,5,6\n"
    )
    problem = TabularProblem(tmp_path / "t.csv", direction="minimize")
    measured = problem.measured
    assert measured.columns == ["metric.m", "cost.board.latency_ms", "cost.my.chip.latency_ms"]
    assert (measured.metric, measured.direction, measured.devices) == ("m", "minimize", ("board", "my.chip"))
    assert {column: m.value for column, m in measured.baseline.items()} == {"cost.board.latency_ms": 5.0}
    assert problem.values(problem.rows[0])["cost.my.chip.latency_ms"] == 4.0


def test_mistakes(path):
    with pytest.raises(ConfigError, match="Unknown task 'c'"):
        TabularProblem(path, "c")
    with pytest.raises(ConfigError, match=r"tabular.task must be one of .*: a, b"):
        TabularProblem(path)
    with pytest.raises(ConfigError, match=r"Unknown metric 'top'.*Did you mean 'top1'"):
        TabularProblem(path, "a", "top")
    with pytest.raises(ConfigError, match=r"tabular.direction.*'up'"):
        TabularProblem(path, "a", direction="up")


def test_the_only_task_and_a_numeric_name(tmp_path):
    (tmp_path / "t.csv").write_text("task,knob.a,metric.m\n7,1,2\n")
    assert TabularProblem(tmp_path / "t.csv").task == "7"
    assert TabularProblem(tmp_path / "t.csv", 7).task == "7"


def test_nearest(path):
    problem = TabularProblem(path, "a")
    assert problem.nearest({"bits": 4, "scheme": "kl", "clip": 0.9}).line == 4  # itself
    assert problem.nearest({"bits": 8, "scheme": "kl", "clip": 0.4}).line == 2
    assert problem.nearest({"bits": 8, "scheme": "kl", "clip": 0.4}, {0}).line == 4  # 4/6 + 0.5/0.8 off
    assert problem.nearest({"bits": 4, "scheme": "max", "clip": 0.9}).line in (3, 4)  # both one knob off
    assert problem.nearest({"bits": 4}, {0, 1, 2, 3}) is None


def test_nearest_breaks_ties_by_the_seed(tmp_path):
    rows = "".join(f"x,k{n},{n}\n" for n in range(30))
    (tmp_path / "t.csv").write_text("task,knob.a,metric.m\n" + rows)
    found = [TabularProblem(tmp_path / "t.csv", seed=seed).nearest({"a": "zz"}).index for seed in range(20)]
    assert len(set(found)) > 8
    again = TabularProblem(tmp_path / "t.csv", seed=3)
    assert again.nearest({"a": "zz"}).index == again.nearest({"a": "zz"}).index == found[3]


@given(
    exclude=st.sets(st.integers(0, 3)),
    bits=st.sampled_from([2, 4, 8, 100]),
    clip=st.sampled_from([0.1, 0.5, None]),
)
def test_nearest_never_returns_an_excluded_row(tmp_path_factory, exclude, bits, clip):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text(TEXT)
    row = TabularProblem(path, "a").nearest({"bits": bits, "scheme": "kl", "clip": clip}, exclude)
    assert (row is None) == (exclude == {0, 1, 2, 3})
    assert row is None or row.index not in exclude


def test_an_incomplete_grid_of_28_knobs():
    if not TABLES.exists():
        pytest.skip("the tables are absent")
    problem = TabularProblem(TABLES / "accel_nasbench.csv")
    assert len(problem.rows) == 5076
    proposal = {name: domain["choices"][0] for name, domain in problem.space_config().items()}
    assert problem.row(proposal) is None
    measured = {problem.nearest(proposal).index}
    assert problem.nearest(proposal, measured).index not in measured
