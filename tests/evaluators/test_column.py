"""The column of a measurement: its text can be parsed back, and no other module builds or splits it."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evaluators.base import Measurement
from evaluators.column import Column
from spaces.errors import InputError

ROOT = Path(__file__).parents[2]
COSTS_NAME = st.text(min_size=1).filter(lambda text: "." not in text)


@given(st.text(min_size=1))
def test_a_metric_of_any_name_is_parsed_back(name):
    column = Column.of(name)
    assert str(column) == f"metric.{name}"
    assert Column.parse(str(column)) == column == Column("metric", None, name)
    assert not column.is_cost


@given(device=st.text(min_size=1), name=COSTS_NAME)
def test_a_cost_on_any_device_is_parsed_back(device, name):
    column = Column.of(name, device)
    assert str(column) == f"cost.{device}.{name}"
    assert Column.parse(str(column)) == column == Column("cost", device, name)
    assert column.is_cost


@given(st.text(alphabet="metricos.t_", max_size=20))
def test_a_text_is_refused_or_parsed_without_loss(text):
    found = Column.find(text)
    assert found is None or str(found) == text


def test_a_device_may_have_dots():
    assert Column.parse("cost.stm32.v2.latency_ms") == Column("cost", "stm32.v2", "latency_ms")
    assert Column.parse("cost.stm32.v2.latency_ms").short == "stm32.v2.latency_ms"
    assert Measurement("latency_ms", 1.0, "ms", "modelled", "stm32.v2").column == "cost.stm32.v2.latency_ms"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "top1",
        "metric",
        "metric.",
        "metrics.top1",
        "cost",
        "cost.",
        "cost.host",
        "cost.host.",
        "cost..latency_ms",
        "knob.bits",
        "baseline.metric.top1",
    ],
)
def test_a_text_that_is_not_a_column_raises(text):
    assert Column.find(text) is None
    with pytest.raises(InputError, match=r"must be `metric.<name>` or `cost.<device>.<name>`"):
        Column.parse(text)


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (("price", None, "top1"), "kind"),
        (("metric", None, ""), "needs the name of a measurement"),
        (("metric", "host", "top1"), "has no device"),
        (("cost", None, "latency_ms"), "needs the name of a device"),
        (("cost", "", "latency_ms"), "needs the name of a device"),
        (("cost", "host", "latency.ms"), "has no dots"),
    ],
)
def test_parts_that_do_not_form_a_column_raise(parts, match):
    with pytest.raises(InputError, match=match):
        Column(*parts)


@given(st.lists(st.tuples(COSTS_NAME, st.none() | st.text(min_size=1)), min_size=2))
def test_columns_are_ordered_and_hashable(parts):
    columns = [Column.of(name, device) for name, device in parts]
    assert sorted(columns) == sorted(sorted(columns, key=str))
    assert len(set(columns)) == len(set(map(str, columns)))


@given(COSTS_NAME, COSTS_NAME, st.none() | st.text(min_size=1))
def test_named_keeps_the_kind_and_the_device(name, other, device):
    assume(name != other)
    assert Column.of(name, device).named(other) == Column.of(other, device)


def _texts(tree):
    """Returns the string literals of a module with their lines, parts of f-strings included, docstrings left out."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def test_no_other_module_builds_or_splits_a_column():
    product = (
        path
        for package in ("search", "spaces", "evaluators", "conf")
        for path in (ROOT / package).rglob("*.py")
    )
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in product
        if path != ROOT / "evaluators/column.py"
        for line, text in _texts(ast.parse(path.read_text()))
        if re.search(r"(?<![\w.])(metric|cost)\.(?!\s|$)|^\W*(metric|cost)\.$", text)
    ]
    assert not found, "use evaluators.column.Column: " + "; ".join(found)
