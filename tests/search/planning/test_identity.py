"""What must be equal to resume a study, and what may change."""

import contextlib
import json
from functools import cache

import numpy as np
import pytest

from search.api import compose
from search.planning.plan_tabular import plan_tabular
from search.planning.session import prepare

BASE = [
    "evaluator=[accuracy,cost]", "objective=accuracy_size", "device=[stm32h743]", "tracker=none", "knowledge=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A float network for 8x8 digits, without a training."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (64, 10)), ("b", (10,)))
    ]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        weights,
    )
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture(scope="module")
def identity(model, tmp_path_factory):
    """Composes a study and returns its identity; asked for the same study again, it answers at once."""
    folder = tmp_path_factory.mktemp("work")

    @cache
    def of(*overrides):
        given = ["model=onnx", f"model.checkpoint={model}", f"cache_dir={folder / 'cache'}", *BASE]
        groups = {o.partition("=")[0] for o in overrides}
        kept = [o for o in given if o.partition("=")[0] not in groups]
        with contextlib.chdir(folder):
            plan = prepare(compose([*kept, *overrides]), lambda text: None).plan
        return json.loads(json.dumps(plan.identity))

    return of


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ("evaluator.accuracy.confidence=0.9", "evaluator"),
        ("evaluator=[accuracy,cost,summary]", "evaluator"),
        ("device.stm32h743.macs_per_s.int8.conv=1.0e+8", "device"),
        ("task.split_seed=1", "task"),
        ("seed=1", "seed"),
    ],
)
def test_what_changes_a_measurement_is_part_of_it(identity, change, section):
    before, after = identity(), identity(change)
    assert [name for name in before if before[name] != after[name]] == [section]
    assert set(before) == set(after)


def test_what_changes_no_measurement_may_change(identity):
    assert identity() == identity(
        "study.n_trials=3", "study.patience=2", "study.time_limit=1 h", "study.trial_time_limit=9 s",
        "study.report=false", "study.start_with_defaults=false", "executor=processes", "sampler=random",
        "pruner=median", "knowledge=folder", "tracker=mlflow", "cache_bytes=1 GiB",
        "device.stm32h743.description=the same board",
        "accelerator=cpu",  # nothing is trained here
    )  # fmt: skip


def test_a_column_is_compared_by_unit_and_source_and_a_timing_by_its_processor(identity):
    found = identity(
        "device=[host,stm32h743]", "evaluator=[accuracy,cost,latency]", "objective=accuracy_latency_size"
    )
    assert found["measurement"]["metric.file_bytes"] == "bytes measured"
    assert found["measurement"]["cost.stm32h743.latency_ms"] == "ms modelled"
    assert found["measurement"]["cost.host.latency_ms"].startswith("ms measured on ")
    assert found["metric"]["name"] == "top1"


def test_what_trains_is_compared_by_what_it_computes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose([
        "stage=[recover,export,quantize]", "space=weights_4_8", "accelerator=cpu", f"cache_dir={tmp_path}", *BASE,
        "+space.recover.epochs=[0,1]", "task.calibration=20",
    ])  # fmt: skip
    found = prepare(config, lambda text: None).plan.identity
    assert found["accelerator"] == "cpu"
    assert "train" in found["task"]


@pytest.mark.parametrize(
    ("table", "overrides"),
    [
        ("task,knob.a,metric.m\nt,1,0.5\nt,2,0.75\n", []),
        ("task,knob.a,metric.m\nt,1,0.5\nt,2,0.7\n", ["tabular.direction=minimize"]),
    ],
)
def test_a_table_is_compared_with_its_numbers(tmp_path, monkeypatch, table, overrides):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.csv"

    def identity(*given):
        config = compose(["experiment=tabular", f"tabular.path={path}", "sampler=random", *given])
        return plan_tabular(config).identity

    path.write_text("task,knob.a,metric.m\nt,1,0.5\nt,2,0.7\n")
    before = identity()
    path.write_text(table)
    assert identity(*overrides) != before
