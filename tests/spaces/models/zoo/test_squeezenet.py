import pytest
import torch

from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.squeezenet import SqueezeNet, SqueezeNetModel


@pytest.mark.slow  # torch takes seconds to export it
class TestRandomWeights(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return SqueezeNetModel(None, n_classes=4, input_shape=[3, 48, 48])


def test_parameters():
    assert sum(p.numel() for p in SqueezeNet().parameters()) == 1_235_496


def test_published_names():
    names = set(SqueezeNet().state_dict())
    assert {
        "features.0.weight",
        "features.3.squeeze.bias",
        "features.12.expand3x3.weight",
        "classifier.1.bias",
    } <= names


def caffe(net):
    """Renames the layers as conversions of Caffe files do, in half precision."""
    short = {"expand1x1": "e1", "expand3x3": "e3", "classifier.1": "head"}
    state = {}
    for name, value in net.state_dict().items():
        for ours, theirs in short.items():
            name = name.replace(ours, theirs)
        state[name] = value.half()
    return state


def test_caffe_weights_take_torch_inputs(tmp_path):
    torch.manual_seed(0)
    theirs = SqueezeNet(5).eval()
    state = caffe(theirs)
    torch.save(state, tmp_path / "c.pth")
    theirs.load_state_dict({n: v.half().float() for n, v in theirs.state_dict().items()})
    ours = SqueezeNetModel(str(tmp_path / "c.pth"), n_classes=5).load(LoadContext(None, tmp_path)).model
    pixels = torch.randint(0, 256, (2, 3, 64, 64)).float()  # red, green, blue
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    means_bgr = torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        wanted = theirs(pixels.flip(1) - means_bgr)
        got = ours((pixels / 255 - mean) / std)
    assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_published_names_are_not_changed(tmp_path):
    net = SqueezeNet(5)
    torch.save(net.state_dict(), tmp_path / "c.pth")
    ours = SqueezeNetModel(str(tmp_path / "c.pth"), n_classes=5).load(LoadContext(None, tmp_path)).model
    assert torch.equal(ours.features[0].weight, net.features[0].weight)
