import sys

import pytest
import torch

from spaces.errors import ConfigError, InputError, UntrustedTargetError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.torch_checkpoint import TorchModel

NET = """
import torch
from pathlib import Path

class Net(torch.nn.Module):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.conv = torch.nn.Conv1d(2, width, 3, padding=1, groups=2)
        self.norm = torch.nn.BatchNorm1d(width)
        self.body = torch.nn.Linear(8, 6)
        self.drop = torch.nn.Dropout()
        self.up = torch.nn.ConvTranspose1d(width, width, 2, groups=2)
        self.head = torch.nn.Linear(7 * width, classes)

    def forward(self, x):
        y = self.drop(self.norm(self.conv(x)))
        y = self.up(torch.relu(self.body(y)) + 0)
        return self.head(y.flatten(1))

def factory(**arguments):
    return Net(**arguments)

def wrong():
    return 3

def broken():
    raise RuntimeError("no luck")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "users_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_nets"
    sys.modules.pop("users_nets", None)


@pytest.fixture
def checkpoint(package, tmp_path):
    import users_nets

    net = users_nets.Net(width=6)
    with torch.no_grad():
        net.norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
        net.norm.bias.fill_(0.3)
    torch.save({"state_dict": {f"module.{n}": v for n, v in net.state_dict().items()}}, tmp_path / "net.pt")
    return str(tmp_path / "net.pt")


class TestTorchModel(ModelSourceConformance):
    @pytest.fixture
    def source(self, package, checkpoint):
        return TorchModel("users_nets.Net", checkpoint, [2, 8], {"width": 6}, trusted_modules=[package])


def load(tmp_path, *arguments, **more):
    more.setdefault("trusted_modules", ["users_nets"])
    return TorchModel(*arguments, **more).load(LoadContext(None, tmp_path))


def test_a_factory_function_is_accepted(package, checkpoint, tmp_path):
    by_class = load(tmp_path, "users_nets.Net", checkpoint, [2, 8], {"width": 6})
    by_factory = load(tmp_path, "users_nets.factory", checkpoint, [2, 8], {"width": 6})
    assert by_class.digest == by_factory.digest
    assert by_class.input.shape == (2, 8)
    assert not by_class.model.training


def test_random_weights_depend_on_the_seed(package, tmp_path):
    model = TorchModel("users_nets.Net", None, [2, 8], trusted_modules=["users_nets"])
    digests = [model.load(LoadContext(None, tmp_path, seed)).digest for seed in (0, 1, 0)]
    assert digests[0] == digests[2] != digests[1]


def test_nothing_of_an_untrusted_package_is_imported(package):
    with pytest.raises(UntrustedTargetError, match=r"model\.cls.*trusted_modules=\[users_nets\]"):
        TorchModel("users_nets.Net", None, [2, 8])
    assert "users_nets" not in sys.modules


@pytest.mark.parametrize(
    ("cls", "arguments", "error", "text"),
    [
        ("users_nets.Net", {"depth": 2}, ConfigError, "model.arguments do not fit users_nets.Net.*depth"),
        ("users_nets.Other", {}, InputError, "has no 'Other'"),
        ("users_nets.wrong", {}, InputError, "gives a int, not a torch.nn.Module"),
        ("users_nets.broken", {}, InputError, "no luck"),
        ("users_nets.Path", {}, UntrustedTargetError, "not a class or function of a trusted package"),
        ("users_nets.Net", {"width": 4}, InputError, r"conv.weight is \(6, 1, 3\) in the file, \(4, 1, 3\)"),
        ("torch.nn.Flatten", {}, InputError, "unexpected conv.weight"),
    ],
)
def test_invalid_classes_and_arguments_raise(package, checkpoint, tmp_path, cls, arguments, error, text):
    with pytest.raises(error, match=text):
        load(tmp_path, cls, checkpoint, [2, 8], arguments)


@pytest.mark.parametrize("shape", [[], [0], [3, -1], [3.0], ["a"], "33", [True]])
def test_input_shape_is_checked(shape):
    with pytest.raises(ConfigError, match=r"model\.input_shape must list"):
        TorchModel("torch.nn.Flatten", None, shape)


def test_inputs_are_named_as_the_arguments_of_forward(package, tmp_path):
    shapes = {"x": [2, 8], "y": [3]}
    source = TorchModel("users_nets.Net", None, shapes, trusted_modules=[package])
    with pytest.raises(ConfigError, match=r"Unknown input 'y' in model\.input_shape\. Known: x"):
        source.load(LoadContext(None, tmp_path))
    with pytest.raises(ConfigError, match=r"Unknown input 'z' in model\.input_dtype"):
        TorchModel("users_nets.Net", None, shapes, trusted_modules=[package], input_dtype={"z": "int64"})
    with pytest.raises(ConfigError, match=r"model\.input_dtype must be one of float32, .*, not 'text'"):
        TorchModel("users_nets.Net", None, [2, 8], trusted_modules=[package], input_dtype="text")
    with pytest.raises(ConfigError, match=r"model\.input_shape\.y must list the positive sizes"):
        TorchModel("users_nets.Net", None, {"x": [2, 8], "y": 3}, trusted_modules=[package])
    tokens = TorchModel("users_nets.Net", None, [2, 8], trusted_modules=[package], input_dtype="int64")
    assert tokens.load(LoadContext(None, tmp_path)).input.dtype == "int64"
