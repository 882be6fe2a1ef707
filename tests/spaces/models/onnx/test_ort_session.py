import numpy as np
import pytest

from evaluators.testing import tiny_model
from spaces.models.onnx.ort_session import CPU, ort_session


@pytest.mark.parametrize(("threads", "spins"), [(1, False), (2, True)])
def test_settings(threads, spins):
    options = ort_session(tiny_model().onnx_bytes, threads).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.log_severity_level == 4
    if spins:
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_further_options_are_set():
    session = ort_session(tiny_model().proto(), enable_cpu_mem_arena=False, log_severity_level=3)
    options = session.get_session_options()
    assert (options.enable_cpu_mem_arena, options.log_severity_level) == (False, 3)
    assert session.get_providers() == [CPU]


def test_outputs_without_optimization_are_close():
    model, x = tiny_model(), np.ones((1, 3, 8, 8), np.float32)
    runs = [
        ort_session(model.onnx_bytes, optimize=o).run(None, {model.input.name: x})[0] for o in (True, False)
    ]
    np.testing.assert_allclose(*runs, rtol=1e-5)
