"""A study's metadata are read back completely, and as far as possible from any other text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.record.metadata import (
    StudyMetadata,
    baseline_metadata,
    first_values,
    metadata_from_json,
    metadata_from_tag,
)

NAMES = st.text(max_size=8)
NUMBERS = st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
METADATA = st.builds(
    StudyMetadata,
    model=NAMES, model_digest=NAMES, task=NAMES, task_digest=NAMES, baseline=NUMBERS,
    units=st.dictionaries(NAMES, NAMES, max_size=4), measured=st.frozensets(NAMES, max_size=4),
    directions=st.dictionaries(NAMES, st.sampled_from(["maximize", "minimize"]), max_size=4),
    defaults=st.dictionaries(NAMES, VALUES, max_size=4), descriptors=NUMBERS, machine=NAMES,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(METADATA)
def test_round_trip(metadata):
    assert metadata_from_json(json.loads(json.dumps(metadata.to_json()))) == metadata
    assert metadata_from_tag(metadata.to_tag()) == metadata


@given(JSON, st.dictionaries(st.sampled_from(list(StudyMetadata().to_json())), JSON))
def test_any_json_is_read_without_an_error(anything, parts):
    for data in (anything, parts):
        metadata = metadata_from_json(data)
        assert metadata_from_json(metadata.to_json()) == metadata


@given(st.text())
def test_any_tag_is_read_without_an_error(text):
    assert isinstance(metadata_from_tag(text), StudyMetadata)


def test_a_long_tag_loses_costs_only():
    costs = {f"cost.device{i}.some_rather_long_name_ms": float(i) for i in range(300)}
    metadata = StudyMetadata(
        model="m",
        baseline={"metric.top1": 1.0, "cost.d.ms": 2.0, **costs},
        units=dict.fromkeys(["metric.top1", "cost.d.ms", *costs], "ms"),
        measured=frozenset(costs),
        directions={"cost.d.ms": "minimize"},
    )
    assert len(metadata.to_tag()) < 8000
    read = metadata_from_tag(metadata.to_tag())
    assert read.baseline == {"metric.top1": 1.0, "cost.d.ms": 2.0}
    assert read.model == "m"


def test_the_baseline_leaves_out_intervals_first_timings_and_the_test_split():
    names = ["top1", "top1_low", "top1_high", "test_top1", "first_top1"]
    attributes = baseline_metadata(
        [
            *(Measurement(name, 1.0, "%", "measured") for name in names),
            Measurement("latency_ms", 2.0, "ms", "measured", "host"),
            Measurement("latency_ms", 3.0, "ms", "modelled", "mcu"),
            Measurement("broken", float("nan"), "", "measured"),
        ]
    )
    assert attributes["baseline"] == {
        "metric.top1": 1.0,
        "cost.host.latency_ms": 2.0,
        "cost.mcu.latency_ms": 3.0,
    }
    assert attributes["measured"] == {"cost.host.latency_ms"}
    assert attributes["units"]["cost.mcu.latency_ms"] == "ms"


def test_first_timings_replace_later_ones():
    values = {"cost.a.b.latency_ms": 2.0, "cost.a.b.first_latency_ms": 3.0, "metric.top1": 1.0}
    assert first_values(values)["cost.a.b.latency_ms"] == 3.0
    assert first_values({"metric.top1": 1.0}) == {"metric.top1": 1.0}


@pytest.mark.parametrize(
    ("metadata", "label"),
    [
        (StudyMetadata("net", task="data"), "net (data)"),
        (StudyMetadata(), "a model"),
        (StudyMetadata("net"), "net"),
    ],
)
def test_label(metadata, label):
    metadata = StudyMetadata(model=metadata.model, task=metadata.task)
    assert metadata.label == label
