import pytest

from evaluators.base import Measurement
from search.record.objectives import Measured, read_columns, read_limits, read_objectives
from search.record.results import Constraint, Objective
from spaces.errors import ConfigError

COLUMNS = {
    "metric.top1", "metric.top1_drop", "metric.file_bytes", "cost.a.latency_ms", "cost.b.latency_ms", "cost.b.weight_bytes",
}  # fmt: skip


def read(config):
    return read_objectives(config, Measured("top1", ["a", "b"], COLUMNS))


def test_a_cost_is_one_axis_per_device_and_metric_is_the_tasks_own():
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
def test_an_invalid_section_raises(config, text):
    with pytest.raises(ConfigError, match=text):
        read(config)


def constraints(rule, name="peak_sram_bytes", sizes=None):
    columns = {"metric.top1", "cost.a.peak_sram_bytes", "cost.b.peak_sram_bytes", "cost.a.latency_ms"}
    columns |= {"cost.a.latency_ms_low", "cost.a.latency_ms_high"}
    config = {"maximize": ["metric"], "constraints": {name: rule}}
    return read_objectives(config, Measured("top1", ["a", "b"], columns, sizes or {}))[1]


def test_a_margin_is_a_share_of_the_limit_or_a_size():
    a, b = constraints({"max": "320 KiB", "margin": "10 %"})
    assert (a.limit, a.margin, a.bound) == (327680.0, 32768.0, 294912.0)
    assert a.excess(294912) == 0
    assert a.excess(294913) > 0
    assert b.column == "cost.b.peak_sram_bytes"
    assert constraints({"max": "320 KiB", "margin": "32KiB", "device": "a"})[0].margin == 32768.0
    assert constraints({"min": 5, "margin": "1 ms"}, "latency_ms")[0].bound == 6.0


def test_the_error_bar_can_be_the_margin():
    (latency,) = constraints({"max": "5 ms", "margin": "error"}, "latency_ms")
    assert (latency.column, latency.limit, latency.margin) == ("cost.a.latency_ms_high", 5.0, 0.0)
    (latency,) = constraints({"min": 5, "margin": "error"}, "latency_ms")
    assert latency.column == "cost.a.latency_ms_low"


def test_the_limit_can_be_the_devices_own():
    sizes = {"cost.b.peak_sram_bytes": 1000.0}
    (only,) = constraints({"max": "device", "margin": "10 %"}, sizes=sizes)
    assert (only.column, only.limit, only.margin) == ("cost.b.peak_sram_bytes", 1000.0, 100.0)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            {"max": "320 KiB", "margin": 10},
            r'peak_sram_bytes.margin: "10" has no unit; write "10 %" .*, "10 KiB"',
        ),
        ({"max": "320 KiB", "margin": "10"}, r'"10" has no unit'),
        ({"max": "320 KiB", "margin": "400 KiB"}, "leaves nothing of the limit"),
        ({"max": "320 KiB", "margin": "-3 %"}, "margin"),
        ({"max": "320 KiB", "margin": "error"}, "has no error bar"),
        ({"max": "320 KiB", "margin": "wide"}, "expected a size such as"),
        ({"max": "device"}, "no device of the study states its limit for peak_sram_bytes"),
    ],
)
def test_an_invalid_margin_raises(rule, text):
    with pytest.raises(ConfigError, match=text):
        constraints(rule)


def baseline(**values):
    units = {"rmse": "K", "top1": "%"}
    return {
        f"metric.{name}": Measurement(name, value, units.get(name, "ms"), "measured")
        for name, value in values.items()
    }


def test_to_maximize_the_metric_is_to_minimize_one_that_is_better_when_lower():
    columns = {"metric.rmse", "metric.rmse_drop", "metric.file_bytes"}
    config = {"maximize": ["metric"], "minimize": ["file_bytes"]}
    objectives, _ = read_objectives(config, Measured("rmse", [], columns, direction="minimize"))
    assert objectives == (Objective("metric.rmse", "minimize"), Objective("metric.file_bytes", "minimize"))


def test_a_limit_in_per_cent_is_points_of_a_percentage_else_a_share_of_the_float_models_value():
    config = {"maximize": ["metric"], "constraints": {"drop": {"measure": "metric_drop", "max": "2 %"}}}
    columns = {"metric.rmse", "metric.rmse_drop", "metric.top1", "metric.top1_drop"}
    for metric, limit in (("rmse", 0.8), ("top1", 2.0)):
        _, (constraint,) = read_objectives(
            config, Measured(metric, [], columns, baseline=baseline(rmse=40.0, top1=40.0))
        )
        assert (constraint.column, constraint.limit) == (f"metric.{metric}_drop", pytest.approx(limit))
    with pytest.raises(
        ConfigError, match=r"the float model has no metric\.rmse that '2 %' could be a share of"
    ):
        read_objectives(config, Measured("rmse", [], columns))


@pytest.mark.parametrize(
    ("rmse", "limit"),
    [(40.0, 0.8), (0.6, 0.4), (0.0, 1.0)],  # 2 % of it; up to 2 % of the guess's 50
)
def test_a_float_model_without_error_leaves_a_share_of_a_guesses(rmse, limit):
    config = {"maximize": ["metric"], "constraints": {"drop": {"measure": "metric_drop", "max": "2 %"}}}
    columns = {"metric.rmse", "metric.rmse_drop"}
    measured = Measured("rmse", [], columns, baseline=baseline(rmse=rmse), guess=50.0)
    _, (constraint,) = read_objectives(config, measured)
    assert constraint.limit == pytest.approx(limit)


def test_a_section_of_limits_is_read_under_its_own_path():
    names = Measured("top1", ["a", "b"], COLUMNS)
    rules = {"size": {"measure": "file_bytes", "max": "2 KiB"}, "gone": None}
    assert read_limits(rules, "allocator.budgets", names) == (
        Constraint("size", "metric.file_bytes", "max", 2048.0),
    )
    with pytest.raises(ConfigError, match=r"Unknown measurement 'magic' in allocator\.budgets\.size"):
        read_limits({"size": {"measure": "magic", "max": 1}}, "allocator.budgets", names)


def test_bytes_per_token_have_units_of_bytes():
    names = Measured("perplexity", ["a"], {"cost.a.bytes_per_token"})
    (limit,) = read_limits({"t": {"measure": "bytes_per_token", "max": "10 MiB"}}, "x", names)
    assert limit.limit == 10 * 2**20


def test_a_measurement_may_be_named_by_its_column():
    objectives, constraints = read(
        {
            "maximize": "metric.top1",
            "minimize": ["cost.b.latency_ms"],
            "constraints": {"small": {"measure": "metric.file_bytes", "max": 1024}},
        }
    )
    assert objectives == (Objective("metric.top1", "maximize"), Objective("cost.b.latency_ms", "minimize"))
    assert constraints == (Constraint("small", "metric.file_bytes", "max", 1024.0),)


@pytest.mark.parametrize("twice", [["top1", "metric"], ["metric.top1", "top1"]])
def test_a_measurement_is_one_objective(twice):
    with pytest.raises(ConfigError, match=r"metric.top1 is named twice"):
        read({"maximize": twice})
    with pytest.raises(ConfigError, match=r"metric.top1 is named twice"):
        read({"maximize": twice[:1], "minimize": twice[1:]})


def test_a_list_of_columns_is_read_by_the_same_names():
    measured = Measured("top1", ["a", "b"], COLUMNS)
    columns = read_columns(["latency_ms", "metric", "cost.a.latency_ms"], "tabular.known", measured)
    assert columns == ("cost.a.latency_ms", "cost.b.latency_ms", "metric.top1")
    assert read_columns(None, "tabular.known", measured) == ()
    with pytest.raises(
        ConfigError, match=r"'top2' in tabular.known, among the columns of t.csv, line 1. Did you mean 'top1'"
    ):
        read_columns(["top2"], "tabular.known", measured, "t.csv")
    with pytest.raises(ConfigError, match=r"tabular.known must be a list of measurement names, not \[3\]"):
        read_columns([3], "tabular.known", measured)


def test_limits_that_are_no_mapping_are_refused():
    with pytest.raises(ConfigError, match=r"objective.constraints must map names to limits"):
        read({"maximize": "metric", "constraints": 3})
