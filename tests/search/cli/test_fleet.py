"""One table and one page over a sweep, whatever was swept."""

import csv
import io
import json
import re
import shlex

import pytest
import yaml

from search.cli.fleet import fleet
from search.cli.fleet_front import front_lines
from search.cli.fleet_tables import cell, html_page, terminal_table
from search.cli.sweep import main, read_studies
from search.report.console import PlainConsole
from search.report.page.testing import read_page
from search.report.testing import hostile_text


def study(
    folder, *overrides, top1=90.0, devices=("board",), own=(), seed=0, sampler="tpe", ships=True, name=None
):
    """Writes the files of a study; a model's latency on a device is the position of the device in its list."""
    name = name or "net-" + ",".join(overrides)
    path = folder / re.sub("[^A-Za-z0-9_]", "-", name)
    path.mkdir(parents=True)

    def entry(factor, quality):
        costs = {d: {"latency_ms": factor * (i + 1.0), "latency_ms_low": 0.5} for i, d in enumerate(devices)}
        metrics = {
            "top1": quality,
            "top1_low": 1.0,
            "test_top1": quality - 1,
            "agreement": 3.0,
            "file_bytes": 1024 * factor,
        }
        return {"number": 1, "knobs": {}, "metrics": metrics, "costs": costs}

    summary = {
        "study": name, "sampler": sampler, "seed": seed, "n_trials": 8, "n_complete": 4, "wall_s": 2.5, "hypervolume": 0.5,
        "baseline": entry(4, 95.0), "best": entry(1, top1) if ships else None,
        "devices": {d: {"best": entry(2, top1 + 1)} for d in own},
    }  # fmt: skip
    (path / "summary.json").write_text(json.dumps(summary))
    command = shlex.join(
        ["paredown", "--config-dir", "x=y", *overrides, f"seed={seed}", f"study.name={name}", "tracker=none"]
    )
    (path / "config.yaml").write_text(yaml.safe_dump({"command": command}))
    (path / "report.html").write_text("")
    return path


def found(folder):
    return fleet(read_studies([folder]).shipped)


def printed(table):
    out = io.StringIO()
    PlainConsole(file=out, width=200).print(table)
    return out.getvalue()


def test_a_sweep_over_models_and_devices_has_a_line_for_each_pair(tmp_path):
    for model, top1 in (("a", 90.0), ("b", 80.0)):
        for device in ("x", "y"):
            study(tmp_path, f"model={model}", f"device=[{device}]", top1=top1, devices=(device,))
    table = found(tmp_path)
    assert table.settings == ("model",)
    assert [(*line.settings, line.device) for line in table.lines] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
    ]
    assert table.names == ("top1", "test_top1", "file_bytes", "latency_ms")
    text = printed(terminal_table(table))
    assert re.search(r"model +device +validation top1 +test top1 +file size +latency", text)
    assert re.search(r"\n b +y +80 +79 +1 KiB +1 ms", text)
    assert "4× faster" in text
    assert "from 95" in text


def test_a_study_of_several_devices_has_a_line_for_each_with_the_devices_own_pick(tmp_path):
    study(tmp_path, "device=[x,y,z]", devices=("x", "y", "z"), own=("y",))
    lines = found(tmp_path).lines
    assert [line.device for line in lines] == ["x", "y", "z"]
    assert [line.values("latency_ms") for line in lines] == [[1.0], [4.0], [3.0]]
    assert [line.values("top1") for line in lines] == [[90.0], [91.0], [90.0]]


def test_seeds_become_a_mean_with_its_interval(tmp_path):
    for seed, top1 in enumerate((90.0, 92.0, 94.0)):
        study(tmp_path, "model=a", f"seed={seed}", seed=seed, top1=top1)
    study(tmp_path, "model=a", "seed=3", seed=3, ships=False)
    (line,) = found(tmp_path).lines
    assert len(line.shipped) == 4
    text = printed(terminal_table(found(tmp_path)))
    assert "[87.03, 96.97] (1 of 4 missed)" in text
    assert re.search(r"\n *(device)? *board +4 ", text)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["task=a", "task=b"], "task"),
        (["sampler=tpe", "sampler=gp"], "sampler"),
        (["space=quantize", "space.quantize.bits=[4,8]"], "space"),
        (["+space.prune.ratio=[0.0,0.5]", "+space.prune.ratio=[0.1]"], "space.prune.ratio"),
        (["experiment=a", "experiment=b"], "experiment"),
    ],
)
def test_whatever_was_swept_is_a_column(tmp_path, settings, key):
    for setting in settings:
        sampler = setting.removeprefix("sampler=") if "sampler" in setting else "tpe"
        study(tmp_path, setting, sampler=sampler)
    table = found(tmp_path)
    assert key in table.settings
    assert len(table.lines) == 2
    assert ("hypervolume" in table.names) == (key == "sampler")


def test_studies_that_were_named_by_hand_are_told_apart(tmp_path):
    study(tmp_path, name="first")
    study(tmp_path, name="second")
    assert found(tmp_path).settings == ("study",)
    study(tmp_path, "device=[x,y]", devices=("x", "y"))
    study(tmp_path, "device=[y,z]", devices=("y", "z"))
    assert len(found(tmp_path).lines) == 6


def test_without_config_yaml_the_settings_are_those_of_the_studys_name(tmp_path):
    for model in ("a", "b"):
        path = study(tmp_path, f"model={model}", "device=[x,y]", name=f"my-net-device=[x,y],model={model}")
        (path / "config.yaml").unlink()
    table = found(tmp_path)
    assert table.settings == ("model",)
    assert [line.settings for line in table.lines] == [("a",), ("b",)]


def test_the_page_has_the_table_a_chart_and_links_to_the_reports(tmp_path, capsys):
    study(tmp_path / "out", "model=a")
    study(tmp_path / "out", "model=b", ships=False)
    assert main([str(tmp_path / "out"), "--page", str(tmp_path / "pages" / "all.html")]) == 0
    text = (tmp_path / "pages" / "all.html").read_text()
    assert "2 studies, by model." in text
    assert "1 line without a candidate that met the constraints." in text
    links = re.findall(r'<a class="report" href="(\.\./[^"]*)">report</a>', text)
    assert len(links) == 2
    assert all((tmp_path / "pages" / link).is_file() for link in links)
    assert "test top1 against latency" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "sweep.csv").read_text())))
    assert "best cost.board.latency_ms" in {row["target"] for row in rows}
    assert "none met the" in capsys.readouterr().out


def test_a_single_studys_figure_has_its_own_interval(tmp_path):
    path = study(tmp_path, "model=a") / "summary.json"
    summary = json.loads(path.read_text())
    summary["best"]["metrics"] |= {"top1_low": 88.0, "top1_high": 91.5}
    path.write_text(json.dumps(summary))
    assert cell(found(tmp_path).lines[0], "top1")[0] == "90 [88, 91.5]"
    assert re.search(r" 90 .*\n.*\[88, 91.5\] ", printed(terminal_table(found(tmp_path))))


def test_a_percentage_has_its_unit_and_no_interval_above_100(tmp_path):
    for seed, top1 in enumerate((99.0, 90.0)):
        path = study(tmp_path, "model=a", f"seed={seed}", seed=seed, top1=top1) / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "units": {"top1": "%"}}))
    (line,) = found(tmp_path).lines
    assert cell(line, "top1") == ("94.50 % [37.32, 100.00]", "from 95.00 %")
    assert cell(line, "test_top1")[0].endswith("150.7]")  # whose unit is unknown


@pytest.mark.parametrize(
    ("latencies", "text"),
    [((1.0, 1.0), "1 ms"), ((1.0, 1.2), "1.10 ms [0.00, 2.37]"), ((1.0, 1.02), "1.01 ms [0.88, 1.14]")],
)
def test_a_cost_has_its_unit_once_and_is_never_below_0(tmp_path, latencies, text):
    for seed, latency in enumerate(latencies):
        path = study(tmp_path, "model=a", f"seed={seed}", seed=seed) / "summary.json"
        summary = json.loads(path.read_text())
        summary["best"]["costs"]["board"] = {"latency_ms": latency}
        path.write_text(json.dumps(summary))
    (line,) = found(tmp_path).lines
    assert cell(line, "latency_ms")[0] == text


def test_the_front_of_a_sweep_is_marked_for_each_device(tmp_path):
    for model, top1, factor in (("a", 90.0, 1), ("b", 80.0, 1), ("c", 95.0, 3)):
        path = study(tmp_path, f"model={model}", top1=top1, devices=("x", "y")) / "summary.json"
        summary = json.loads(path.read_text())
        for costs in summary["best"]["costs"].values():
            costs["latency_ms"] *= factor
        path.write_text(json.dumps(summary))
    table = found(tmp_path)
    kept = {(*table.lines[i].settings, table.lines[i].device) for i in front_lines(table)}
    assert kept == {("a", "x"), ("a", "y"), ("c", "x"), ("c", "y")}
    page = read_page(html_page(table, "t", tmp_path))
    assert page.problems == []
    assert (
        sum(label.startswith(("x\n", "y\n")) for label in page.labels) == 12
    )  # in the chart and side by side


def test_lower_is_better_where_drops_say_so(tmp_path):
    for model, error in (("a", 1.0), ("b", 2.0)):
        path = study(tmp_path, f"model={model}") / "summary.json"
        summary = json.loads(path.read_text())
        for entry, value in ((summary["baseline"], 0.5), (summary["best"], error)):
            entry["metrics"] = {"rmse": value, "rmse_drop": value - 0.5, "file_bytes": 1024}
        path.write_text(json.dumps(summary))
    table = found(tmp_path)
    assert [table.lines[i].settings for i in front_lines(table)] == [("a",)]


def test_texts_of_studies_from_elsewhere_are_shown_as_text(tmp_path):
    evil = hostile_text()
    path = study(tmp_path, f"model={evil}", devices=(evil,), name="net")
    study(tmp_path, "model=b", sampler=evil)
    summary = json.loads((path / "summary.json").read_text())
    summary |= {
        "study": evil,
        "baseline": {"metrics": {evil: 1.0}, "costs": {evil: {evil: 2.0, "latency_ms": 1.0}}},
    }
    (path / "summary.json").write_text(json.dumps(summary))
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "sweep.html").read_text()
    for markup in ("<script>alert", "<img"):
        assert markup not in page
    assert "\x1b" not in printed(terminal_table(found(tmp_path)))
    for row in csv.reader(io.StringIO((tmp_path / "sweep.csv").read_text())):
        assert not any(cell.startswith("=") for cell in row)


@pytest.mark.parametrize(
    "change",
    [
        {"devices": 3},
        {"devices": {"x": 3}},
        {"baseline": [1]},
        {"best": {"metrics": {"a": "<b>"}}},
        {"best": {"costs": 3}},
        {"wall_s": []},
    ],
    ids=str,
)
def test_a_summary_of_other_types_is_one_message(tmp_path, capsys, change):
    path = study(tmp_path, "model=a") / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert len(message.strip().splitlines()) == 1
    assert "lacks what a study writes" in message


def test_wrong_arguments_are_exit_status_2(tmp_path, capsys):
    study(tmp_path, "model=a")
    assert main([]) == 2
    assert main(["--nonsense"]) == 2
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path), "--page", str(tmp_path / "file" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "net-model-a" / "summary.json").write_text("[" * 100_000)
    assert main([str(tmp_path)]) == 2


def test_a_page_of_nothing_measured_is_whole(tmp_path):
    study(tmp_path, "model=a", devices=(), ships=False)
    assert html_page(found(tmp_path), "t", tmp_path).rstrip().endswith("</html>")


def test_a_bug_in_the_page_leaves_the_tables_and_is_told(tmp_path, capsys, monkeypatch):
    def bug(*arguments):
        raise KeyError("a bug")

    study(tmp_path, "model=a")
    monkeypatch.setattr("search.cli.sweep.html_page", bug)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "board" in printed.out
    assert "sweep.html" not in printed.out
    assert (tmp_path / "sweep.csv").exists()
    (line,) = printed.err.splitlines()
    assert line.startswith("paredown-results: Could not make sweep.html (KeyError: 'a bug')")
    assert "in bug" in (tmp_path / "errors.log").read_text()
