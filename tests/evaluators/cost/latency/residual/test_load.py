import json

import numpy as np
import pytest

from evaluators.cost.graph import Kernel
from evaluators.cost.latency.residual import load_residual
from evaluators.cost.latency.residual.kernel import KernelResidual
from evaluators.cost.latency.residual.kernel_features import TERMS
from spaces.errors import InputError


def kernel(op="Conv", macs=1000):
    return Kernel("k", op, "conv", "float32", macs, 10, ("a",), ("b",), 100, 200)


@pytest.fixture
def file(tmp_path):
    coefficients = [0.0] * len(TERMS)
    coefficients[TERMS.index("macs")] = 1e-3
    path = tmp_path / "mine.residual.json"
    path.write_text(json.dumps(KernelResidual({("Conv", "conv"): coefficients}).to_json()))
    return path


def test_reads_what_was_written(file):
    residual = load_residual(file)
    times = residual.corrected_ms([kernel(macs=2000), kernel("Unheard")], np.array([7.0, 5.0]))
    assert times.tolist() == pytest.approx([2.0, 5.0])


def test_reads_a_file_again_only_when_it_changed(file):
    first = load_residual(file)
    assert load_residual(str(file)) is first
    data = json.loads(file.read_text())
    data["formulas"][0]["ms"][0] = 2e-3
    file.write_text(json.dumps(data))
    import os

    os.utime(file, ns=(1, 1))
    assert load_residual(file).corrected_ms([kernel()], np.ones(1)).tolist() == pytest.approx([2.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON"),
        ("[]", "paredown_residual"),
        ('{"paredown_residual": 99, "kind": "kernel"}', "paredown_residual"),
        ('{"paredown_residual": 1, "kind": "magic"}', "magic"),
        ('{"paredown_residual": 1, "kind": "kernel"}', "damaged"),
    ],
)
def test_a_damaged_file_raises(tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_residual(path)
    assert str(path) in str(error.value)


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(InputError, match="no such residual"):
        load_residual(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(terms=["macs"]),
        lambda d: d["formulas"][0].update(ms=[1.0]),
        lambda d: d["formulas"][0].pop("op"),
        lambda d: d.update(trees={"learner": {}}),
        lambda d: d.update(trees=3),
    ],
)
def test_a_file_with_other_content_raises(file, change):
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match="damaged"):
        load_residual(file)
