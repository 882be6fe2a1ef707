import pytest

from search.objectives import read_objectives
from search.results import Constraint, Objective
from spaces.errors import ConfigError

COLUMNS = {
    "metric.top1", "metric.top1_drop", "metric.file_bytes", "cost.a.latency_ms", "cost.b.latency_ms", "cost.b.weight_bytes",
}  # fmt: skip


def read(config):
    return read_objectives(config, "top1", ["a", "b"], COLUMNS)


def test_a_cost_is_one_axis_per_device_and_metric_stands_for_the_tasks():
    objectives, _ = read({"maximize": ["metric"], "minimize": ["latency_ms", "file_bytes"]})
    assert objectives == (
        Objective("metric.top1", "maximize"),
        Objective("cost.a.latency_ms", "minimize"),
        Objective("cost.b.latency_ms", "minimize"),
        Objective("metric.file_bytes", "minimize"),
    )


def test_constraints_with_units_devices_and_both_limits():
    _, constraints = read(
        {
            "maximize": "metric",
            "constraints": {
                "drop": {"measure": "metric_drop", "max": 1},
                "flash": {"measure": "weight_bytes", "device": "b", "max": "100 KiB"},
                "latency_ms": {"max": "2 s", "min": 0.1},
                "gone": None,
            },
        }
    )
    assert constraints == (
        Constraint("drop", "metric.top1_drop", "max", 1.0),
        Constraint("flash", "cost.b.weight_bytes", "max", 102400.0),
        Constraint("latency_ms.a.max", "cost.a.latency_ms", "max", 2000.0),
        Constraint("latency_ms.b.max", "cost.b.latency_ms", "max", 2000.0),
        Constraint("latency_ms.a.min", "cost.a.latency_ms", "min", 0.1),
        Constraint("latency_ms.b.min", "cost.b.latency_ms", "min", 0.1),
    )


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "at least one measurement"),
        ({"maximise": ["metric"]}, "Did you mean 'maximize'"),
        ({"maximize": ["top5"]}, "Unknown measurement 'top5' in objective.maximize"),
        ({"maximize": [3]}, "list of measurement names"),
        ({"maximize": ["metric"], "constraints": {"c": {"measure": "latency_ms", "device": "c", "max": 1}}}, "Unknown device 'c'"),
        ({"maximize": ["metric"], "constraints": {"c": {"measure": "weight_bytes", "device": "a", "max": 1}}}, "absent for device a"),
        ({"maximize": ["metric"], "constraints": {"c": {"measure": "latency_ms"}}}, "must have `max` or `min`"),
        ({"maximize": ["metric"], "constraints": {"c": 3}}, "must have `max` or `min`"),
        ({"maximize": ["metric"], "constraints": {"c": {"measure": "top1", "max": "high"}}}, "must be a number"),
        ({"maximize": ["metric"], "constraints": {"c": {"maxx": 3}}}, "Unknown key 'maxx'"),
    ],
)  # fmt: skip
def test_mistakes_are_told(config, text):
    with pytest.raises(ConfigError, match=text):
        read(config)
