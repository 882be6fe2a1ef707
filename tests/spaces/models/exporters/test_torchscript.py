import numpy as np
import onnxruntime
import torch
from torch import nn

from spaces.models.exporters.interface import Interface
from spaces.models.exporters.quiet import quiet
from spaces.models.exporters.same_outputs import check_outputs
from spaces.models.exporters.torchscript import torchscript_export


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, second, first):
        return self.norm(self.conv(second)).mean((2, 3)) - first


def batch(n):
    return (), {"first": torch.zeros(n, 4), "second": torch.zeros(n, 3, 2, 2)}


def exported():
    module = Two().eval()
    with quiet():
        return module, torchscript_export(module, Interface(batch, ["first", "second"], ["out"]))


def test_inputs_keep_their_names_in_any_order_and_weights_theirs():
    module, proto = exported()
    names = {i.name for i in proto.graph.initializer}
    assert {"conv.weight", "norm.weight"} <= names
    feeds = {"first": np.ones((5, 4), np.float32), "second": np.full((5, 3, 2, 2), 2, np.float32)}
    (found,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(["out"], feeds)
    with torch.no_grad():
        wanted = module(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_the_comparison_feeds_inputs_by_name():
    module, proto = exported()
    check_outputs(proto, module, batch)
