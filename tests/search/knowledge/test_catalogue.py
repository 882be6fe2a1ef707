"""The catalogue of all networks, over real studies of the smallest size."""

import shutil

import pandas as pd
import pytest

from search.api import run
from search.cli.sweep import main
from search.knowledge import networks, rank_correlations, results
from search.report.page.testing import read_page
from spaces.errors import InputError

OVERRIDES = [
    "model=ds_cnn", "stage=[architecture,train,export,quantize]", "~space.quantize", "device=stm32h743", "evaluator=[accuracy,cost]",
    "+space.architecture={width: [4, 8], depth: [1, 2], stem_stride: 2}", "+space.train={epochs: 2, learning_rate: 0.01}",
    "model.training.epochs=1", "objective=accuracy_size", "executor=serial", "tracker=none", "knowledge=none", "study.report=false",
    "sampler=brute_force", "~objective.constraints.drop",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("catalogue")
    for name, n_trials in (("one", 4), ("two", 1)):
        run([*OVERRIDES, f"study.name={name}", f"study.dir={where / name}", f"study.n_trials={n_trials}", f"cache_dir={where / 'cache'}"])  # fmt: skip
    return where


def test_every_trial_is_a_row_with_structure_counts_and_scores(folder):
    table = results(folder)
    assert len(table) == 5
    assert set(table["study"]) == {"one", "two"}
    one = table[table["study"] == "one"].set_index("number")
    trials = pd.read_csv(folder / "one" / "trials.csv").set_index("number")
    pd.testing.assert_series_equal(one["metric.top1"], trials["metric.top1"], check_dtype=False)
    assert one["structure"].nunique() == 4
    assert (one["parameters"] > 0).all()
    assert all(len(curve) == 2 for curve in one["curve"])


def test_the_same_architecture_in_two_studies_is_one_network(folder):
    found = networks(results(folder), "metric.top1")
    assert len(found) == 4
    assert sorted(found["n_studies"]) == [1, 1, 1, 2]
    assert found["metric.top1"].is_monotonic_decreasing
    assert set(rank_correlations(found, "metric.top1")) == {"macs", "parameters", "peak_activation_bytes"}


def test_a_study_that_is_half_written_is_left_out(folder, tmp_path):
    copy = tmp_path / "studies"
    shutil.copytree(folder, copy)
    (copy / "two" / "config.yaml").write_text("config: {stu")
    assert set(results(copy)["study"]) == {"one"}
    journal = copy / "one" / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(at for at, line in enumerate(lines) if b'"record"' in line)
    journal.write_bytes(b"".join(lines[:last]) + lines[last][:50])  # killed while it wrote a record
    before = journal.read_bytes()
    assert len(results(copy)) == 3
    assert journal.read_bytes() == before


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        results(tmp_path / "absent")
    assert results(tmp_path).empty
    with pytest.raises(InputError, match="no trial with an architecture stage"):
        networks(results(tmp_path), "metric.top1")


def test_the_command_lists_the_networks(folder, capsys):
    assert main(["--networks", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "4 architectures in 5 trials" in out
    assert len(pd.read_csv(folder / "networks.csv")) == 4
    page = (folder / "networks.html").read_text()
    assert "Rank correlation" in page
    assert "over MACs</figcaption>" in page
    assert read_page(page).problems == []


def test_an_unknown_metric_is_one_message(folder, capsys):
    assert main(["--networks", "--metric", "topp1", str(folder)]) == 2
    assert "topp1" in capsys.readouterr().err
