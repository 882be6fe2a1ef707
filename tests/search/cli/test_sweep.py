"""The summary of a sweep as one table."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from search.cli.app import run_command
from search.cli.sweep import OVER_TASKS, Run, geometric_mean, interval, main, summarise


def write(folder, sampler, task, seed, best, **changes):
    path = folder / f"{sampler}-{task}-{seed}" / "summary.json"
    path.parent.mkdir(parents=True)
    summary = {
        "study": path.parent.name, "sampler": sampler, "n_trials": 48, "seed": seed,
        "tabular": {"path": "t.csv", "task": task},
        "trials_to_best": best, "trials_to_0.1": best, "trials_to_0.5": 1,
    }  # fmt: skip
    path.write_text(json.dumps({**summary, **changes}))


@pytest.fixture
def folder(tmp_path):
    for seed, (a, b) in enumerate([(2, 20), (4, 30), (6, 40)]):
        write(tmp_path, "tpe", "a", seed, a)
        write(tmp_path, "tpe", "b", seed, b)
        write(tmp_path, "random", "a", seed, None if seed else 10)
    return tmp_path


def test_the_table_has_means_and_intervals_over_seeds(folder, capsys):
    assert main([str(folder)]) == 0
    rows = pd.read_csv(folder / "sweep.csv").set_index(["sampler", "task", "target"])
    assert rows.loc[("tpe", "a", "trials_to_best"), "mean"] == 4
    assert rows.loc[("tpe", "mean over tasks", "trials_to_best"), "mean"] == 17
    geometric = rows.loc[("tpe", "geometric mean over tasks", "trials_to_best")]
    assert geometric["mean"] == pytest.approx(math.sqrt(4 * 30))
    assert geometric["low"] < geometric["mean"] < geometric["high"]
    # t(0.975, 2) = 4.303, standard error 2 / sqrt(3)
    assert rows.loc[("tpe", "a", "trials_to_best"), "high"] == pytest.approx(4 + 4.303 * 2 / 3**0.5, abs=1e-3)
    missed = rows.loc[("random", "a", "trials_to_best")]
    assert (missed["n_runs"], missed["n_unreached"]) == (3, 2)
    assert missed["mean"] == pytest.approx((10 + 48 + 48) / 3)
    text = capsys.readouterr().out
    assert "geometric mean over tasks" in text
    assert "2 of 3 missed" in text


def test_several_folders_are_not_counted_twice(folder, tmp_path):
    output = tmp_path / "out.csv"
    assert main([str(folder), str(folder / "tpe-a-0"), "--output", str(output)]) == 0
    rows = pd.read_csv(output)
    assert rows[(rows.sampler == "tpe") & (rows.task == "a")].n_runs.tolist() == [3, 3, 3]


def test_summaries_without_results_are_left_out(folder):
    (folder / "other").mkdir()
    (folder / "other" / "summary.json").write_text('{"study": "x", "sampler": "gp"}')
    assert main([str(folder)]) == 0
    assert "gp" not in pd.read_csv(folder / "sweep.csv").sampler.tolist()


def test_invalid_folders_and_files_are_reported_in_one_message(tmp_path, capsys):
    def message(*arguments):
        assert main([str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    assert "is no folder" in message(tmp_path / "none")
    assert "holds no finished study" in message(tmp_path)
    write(tmp_path, "tpe", "a", 0, "many")
    assert "tpe-a-0" in message(tmp_path)
    (tmp_path / "tpe-a-0" / "summary.json").write_text("{")
    assert "cannot be read as JSON" in message(tmp_path)
    (tmp_path / "tpe-a-0" / "summary.json").write_text('{"tabular": {"task": "a"}}')
    assert "lacks what a study on a table writes" in message(tmp_path)


def test_an_output_that_cannot_be_written_is_reported(folder, capsys):
    assert main([str(folder), "--output", str(folder / "no" / "such.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_single_run_has_no_interval():
    rows = summarise(
        [Run("s", "a", 9, dict.fromkeys(("trials_to_best", "trials_to_0.1", "trials_to_0.5"), 3))]
    )
    assert [row.text() for row in rows] == ["3.0"] * 3


def test_means():
    assert geometric_mean([2, 8]) == pytest.approx(4)
    low, high = interval([1, 2, 3])
    assert (low + high) / 2 == pytest.approx(2)
    assert all(map(math.isnan, interval([1])))


def test_the_interval_over_tasks_has_its_nominal_coverage():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        runs = [
            Run("s", task, 99, dict.fromkeys(("trials_to_best", "trials_to_0.1"), int(n)))
            for task, mean in (("a", 30), ("b", 60))
            for n in rng.poisson(mean, size=5)
        ]
        row = next(row for row in summarise(runs) if row.task == OVER_TASKS[0])
        hits += row.low <= 45 <= row.high
    assert 0.91 < hits / 400 < 0.99  # 95 % +- about 3.7 standard errors


def write_study(folder, name, sampler, hypervolume, top1, **changes):
    path = folder / name / "summary.json"
    path.parent.mkdir(parents=True)
    best = None if top1 is None else {"metrics": {"top1": top1, "top1_low": 1.0}}
    summary = {
        "study": name, "sampler": sampler, "n_trials": 8, "n_complete": 4, "wall_s": 2.5, "hypervolume": hypervolume,
        "best": best,
    }  # fmt: skip
    path.write_text(json.dumps({**summary, **changes}))


def test_studies_without_a_table_are_summarised_too(tmp_path, capsys):
    for seed, top1 in enumerate((90.0, 92.0, None)):
        write_study(tmp_path, f"my-net-sampler=tpe,seed={seed},space=prune", "tpe", 0.5 + seed / 10, top1)
    write_study(tmp_path, "my-net-sampler=random,seed=0,space=prune", "random", None, 80.0)
    write_study(tmp_path, "my-net-sampler=tpe,seed=0,space=[a,b]", "tpe", 0.25, 70.0)
    write(tmp_path, "gp", "a", 0, 3)
    assert main([str(tmp_path)]) == 0
    rows = pd.read_csv(tmp_path / "sweep.csv").set_index(["sampler", "task", "target"])
    group = rows.loc[("tpe", "my-net-space=prune")]
    assert group.loc["hypervolume", "mean"] == pytest.approx(0.6)
    # t(0.975, 2) = 4.303, standard error 0.1 / sqrt(3)
    assert group.loc["hypervolume", "high"] == pytest.approx(0.6 + 4.303 * 0.1 / 3**0.5, abs=1e-4)
    assert tuple(group.loc["best top1", ["mean", "n_runs", "n_unreached"]]) == (91, 3, 1)
    assert set(group.index) == {"hypervolume", "n_trials", "n_complete", "wall_s", "best top1"}
    assert "hypervolume" not in rows.loc[("random", "my-net-space=prune")].index
    assert rows.loc[("tpe", "my-net-space=[a,b]", "best top1"), "mean"] == 70
    assert rows.loc[("gp", "a", "trials_to_best"), "mean"] == 3
    out = capsys.readouterr().out
    assert re.search(r" 91 .*\n.* \[78\.", out)
    assert "(1 of 3 missed)" in out


def test_sweeps_over_two_tables_do_not_overwrite_each_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    long = tmp_path / "long" / ("x" * 200)
    long.mkdir(parents=True)
    paths = [tmp_path / "one.csv", long / "a.csv", long / "b.csv"]
    for path in paths:
        path.write_text("task,knob.a,metric.m\nt,1,0.5\nt,2,0.7\n")
        arguments = [f"tabular.path={path}", "sampler=random", "study.storage=memory", "study.report=false"]
        assert run_command(["--multirun", "experiment=tabular", *arguments, "seed=0,1"]) == 0
        assert "written to outputs/tabular" in capsys.readouterr().out
    assert len(list((tmp_path / "outputs").glob("*-sweep.csv"))) == len(paths)
    found = [json.loads(p.read_text()) for p in (tmp_path / "outputs").rglob("summary.json")]
    assert sorted((s["tabular"]["path"], s["seed"]) for s in found) == sorted(
        (str(path), seed) for path in paths for seed in (0, 1)
    )


def test_studies_of_several_objectives_have_targets_of_their_own(folder, capsys):
    best = dict.fromkeys(("trials_to_best", "trials_to_0.1", "trials_to_0.5"))
    for seed, n in enumerate((10, 14)):
        write(folder, "gp", "a", seed, None)
        path = folder / f"gp-a-{seed}" / "summary.json"
        summary = {k: v for k, v in json.loads(path.read_text()).items() if k not in best}
        path.write_text(json.dumps({**summary, "trials_to_90%": n, "trials_to_95%": None}))
    assert main([str(folder)]) == 0
    rows = pd.read_csv(folder / "sweep.csv")
    own = rows[rows.sampler == "gp"].set_index("target")
    assert set(own.index) == {"trials_to_90%", "trials_to_95%"}
    assert own.loc["trials_to_90%", "mean"] == 12
    assert (own.loc["trials_to_95%", "n_unreached"], own.loc["trials_to_95%", "mean"]) == (2, 48)
    assert set(rows[rows.sampler == "tpe"].target) == set(best)
    assert "trials_to_90%" in capsys.readouterr().out
