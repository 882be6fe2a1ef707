"""Tables as a knowledge source: usable tasks are read; a damaged table is refused as a whole."""

import pytest

from search.knowledge.base import Deadline, Own, PastStudy, Refused
from search.knowledge.csv import CsvKnowledge
from spaces.errors import ConfigError

GOOD = """task,task.conv,knob.quantize.scheme,knob.quantize.calibration_images,metric.top1,cost.mcu.latency_ms,baseline.metric.top1
a,3,asymmetric,16,70,2.5,72
a,3,symmetric,16,69,,72
b,5,asymmetric,16,0.5,1,
"""


def read(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return list(CsvKnowledge(str(path)).studies(Own("x", tmp_path / "x"), Deadline(5)))


def test_every_task_is_a_study(tmp_path):
    a, b = read(tmp_path, GOOD)
    assert (a.name, a.metadata.label, a.metadata.descriptors) == ("a of table.csv", "a", {"conv": 3.0})
    assert a.trials[0].values == {"metric.top1": 70.0, "cost.mcu.latency_ms": 2.5}
    assert a.trials[0].baseline == {"metric.top1": 72.0}
    assert a.trials[1].values == {"metric.top1": 69.0}
    assert a.trials[0].knobs == {"quantize.scheme": "asymmetric", "quantize.calibration_images": 16}
    assert b.trials[0].baseline == {}


@pytest.mark.parametrize("column", ["metric.top1_float", "metric.top1_fp32", "metric.top1_drop"])
def test_the_float_models_value_is_read_from_several_columns(tmp_path, column):
    value = "2" if column.endswith("drop") else "72"
    (study,) = read(tmp_path, f"task,knob.q,metric.top1,{column}\na,1,70,{value}\n")
    assert study.trials[0].baseline["metric.top1"] == 72.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("task,knob.q,metric.top1\n", "has a header but no rows"),
        ("task,knob.q\na,1\n", "has no column `metric.*`"),
        ("task,metric.top1\na,1\n", "has no column `knob.*`"),
        ("task,knob.q,metric.top1\na,1,high\n", "must hold a finite number"),
        ("task,knob.q,metric.top1,cost.d.ms\na,1,1,slow\n", "column `cost.d.ms` must hold a finite number"),
        ("task,knob.q,metric.top1\na,1\n", "has 2 cells"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, why):
    (refused,) = read(tmp_path, text)
    assert isinstance(refused, Refused)
    assert why in refused.why


def test_a_missing_table_is_refused(tmp_path):
    for path in (tmp_path / "nope.csv", tmp_path):
        (refused,) = CsvKnowledge(str(path)).studies(Own("x", tmp_path), Deadline(5))
        assert str(path) in refused.why
    with pytest.raises(ConfigError, match=r"knowledge\.seconds"):
        CsvKnowledge("x.csv", seconds=-1)


def test_a_real_study_learns_from_a_table(lab, tmp_path):
    path = tmp_path / "table.csv"
    rest = "knob.quantize.granularity,knob.quantize.weight_bits"
    lines = GOOD.splitlines()
    path.write_text("\n".join([f"{lines[0]},{rest}", *(f"{line},channel,8" for line in lines[1:])]))
    _, known = lab.planned("by_csv", "csv", "knowledge=csv", f"knowledge.path={path}")
    assert [(row.task, row.value, row.baseline) for row in known.rows] == [
        ("a", 70.0, 72.0),
        ("a", 69.0, 72.0),
    ]
    assert known.rows[0].values[0] == -2.0
    assert known.rows[0].descriptors == {"conv": 3.0}
    assert (
        "b of table.csv: other unit: metric.top1 looks like a share there (at most 0.5)" in known.refused[0]
    )
    path.write_text(path.read_text().replace("metric.top1", "metric.f1"))
    _, known = lab.planned("by_csv", "csv", "knowledge=csv", f"knowledge.path={path}")
    assert known.rows == ()
    assert "it did not measure metric.top1, but metric.f1" in known.refused[0]
    assert isinstance(read(tmp_path, GOOD)[0], PastStudy)
