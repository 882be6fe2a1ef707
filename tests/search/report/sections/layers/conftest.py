from dataclasses import replace

import pytest

from evaluators.testing import tiny_model
from search.report.testing import fake_results

BOARD = {"runtime": "r", "macs_per_s": {"float32": 1e6, "int8": 4e6}, "ram_bytes": "2 KiB"}


@pytest.fixture
def results(tmp_path):
    fake = fake_results(tmp_path, 24, ("board",))
    fake = replace(fake, config={**fake.config, "device": {"board": BOARD}})
    path = fake.model_path(fake.picks[0].number)
    path.parent.mkdir()
    path.write_bytes(tiny_model().onnx_bytes)
    return fake
