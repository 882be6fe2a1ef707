"""A live torch network and its batches, as the files of a study."""

import numpy as np
import onnxruntime
import pytest
import torch

import search
from search.requests.live import write_live
from spaces.errors import ConfigError


def test_the_files_hold_the_network_and_the_data(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten()).train()
    inputs, labels = torch.randn(10, 2, 5, 5), torch.arange(10)
    model, data = write_live(net, [(inputs[:6], labels[:6]), (inputs[6:], labels[6:])], tmp_path / "input")
    assert net.training
    with np.load(data) as stored:
        np.testing.assert_array_equal(stored["x"], inputs)
        np.testing.assert_array_equal(stored["y"], labels)
    session = onnxruntime.InferenceSession(model)
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, net.eval()(inputs), atol=1e-5)


@pytest.mark.parametrize("wrapped", [lambda x: x, lambda x: [x], lambda x: (x.numpy(),)])
def test_inputs_alone_are_data_without_labels(tmp_path, wrapped):
    inputs = torch.randn(10, 4)
    _, data = write_live(torch.nn.Linear(4, 2), map(wrapped, inputs.split(6)), tmp_path)
    with np.load(data) as stored:
        assert stored.files == ["x"]
        np.testing.assert_array_equal(stored["x"], inputs)


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        ([], "loader yields no batch"),
        (["a"], "must yield batches (inputs, labels), or inputs alone, but yields str"),
        ([(torch.zeros(2, 4), {}, 3)], "but yields tuple of Tensor, dict, int"),
        ([[]], "but yields list"),
        ([(torch.zeros(2, 4), torch.zeros(2)), torch.zeros(2, 4)], "batches with labels and batches without"),
        (
            [(torch.zeros(2, 4), torch.zeros(3))],
            "as many labels as inputs, but yields shapes (2, 4) and (3,)",
        ),
        ([(torch.zeros(2), torch.zeros(2))], "yields shapes (2,)"),
    ],
)
def test_a_loader_of_something_else_is_refused(tmp_path, loader, told):
    with pytest.raises(ConfigError) as caught:
        write_live(torch.nn.Linear(4, 2), loader, tmp_path)
    assert told in str(caught.value)


def test_an_unknown_device_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'host'"):
        search.quantize(torch.nn.Linear(4, 2), [], device="hots")
    assert not list(tmp_path.iterdir())
