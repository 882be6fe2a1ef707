import doctest
import io
from dataclasses import replace
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.console import Console

import search.api
import search.results
from search import Results, Study, compose
from search.report.findings.health import checks
from search.report.testing import fake_results
from spaces.errors import StudyError

TABLE = "task,knob.bits,metric.top1\ndigits,4,91.5\ndigits,8,97.0\n"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """What the doctests use: a study of a table with two candidates."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(TABLE)
    overrides = [
        "experiment=tabular",
        "tabular.path=table.csv",
        "tabular.stop_at_best=false",
        "sampler=brute_force",
    ]
    net, loader = separated(200)
    short = ["objective=accuracy_size", "tracker=none", "study.report=false", "cache_dir=cache"]
    quiet = Console(file=io.StringIO())
    return {"overrides": overrides, "quiet": quiet, "net": net, "loader": loader, "short": short}


def separated(n):
    """A network that tells points by the sign of their sum, and batches of such points."""
    import torch

    inputs = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Sequential(torch.nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 4))
        net[0].bias.zero_()
    data = torch.utils.data.TensorDataset(inputs, (inputs.sum(1) > 0).long())
    return net, torch.utils.data.DataLoader(data, batch_size=64)


@pytest.mark.parametrize("module", [search.api, search.results], ids=lambda m: m.__name__)
def test_doctests(module, study):
    results = Study(compose(study["overrides"])).run(study["quiet"])
    names = {**vars(module), **study, "results": results}
    found = [t for t in doctest.DocTestFinder().find(module, globs=names) if t.examples]
    assert len(found) >= 3
    assert [doctest.DocTestRunner().run(t).failed for t in found] == [0] * len(found)


def test_each_device_has_its_own_model(tmp_path):
    record = fake_results(tmp_path)
    results = Results(record)
    for pick in record.picks:
        assert results.best(pick.device).number == pick.number
        assert results.model(pick.device) == record.model_path(pick.number)
    assert results.best().number == record.best
    assert tuple(results.front()["number"]) == record.front


def test_a_table_has_all_trials_and_numbers_are_numbers(tmp_path):
    record = fake_results(tmp_path)
    table = Results(record).to_dataframe()
    assert list(table["number"]) == [t.number for t in record.trials]
    assert pd.api.types.is_float_dtype(table["metric.top1"])
    assert len(Results(replace(record, front=())).front()) == 0


def test_an_unknown_device_is_told_with_those_that_are_known(tmp_path):
    with pytest.raises(StudyError, match=r"'toaster'.*host, stm32h743"):
        Results(fake_results(tmp_path)).best("toaster")
    with pytest.raises(StudyError, match="no best trial"):
        Results(fake_results(tmp_path, top1_min=101.0)).model()


def test_the_checks_are_those_of_the_report(tmp_path):
    record = fake_results(tmp_path)
    table = Results(record).checks()
    assert table.columns.tolist() == ["name", "status", "message", "next_step"]
    assert [tuple(row) for row in table.values] == [
        (c.name, c.status, c.text, c.next_step) for c in checks(record)
    ]
    assert len(table) > 2
    assert Results(replace(record, trials=())).checks().empty


def test_the_picture_is_one_that_a_notebook_shows(tmp_path):
    record = fake_results(tmp_path)
    picture = Results(record).picture()
    root = ElementTree.fromstring(picture._repr_svg_())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    told = {text for node in root.iter() if (text := node.text)}
    assert any(str(number) in words.split(", ") for number in record.front for words in told)


def test_a_study_without_a_cost_has_no_picture(tmp_path):
    record = fake_results(tmp_path)
    with pytest.raises(StudyError, match=r"needs a metric and a cost as objectives, not metric\.top1"):
        Results(replace(record, objectives=record.objectives[:1])).picture()
