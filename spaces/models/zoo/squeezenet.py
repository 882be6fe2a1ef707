"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360), with the layer names of the published checkpoints."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.models.checkpoint import CheckpointModel
from spaces.models.torch.state_dict import State

# Names of the same layers in conversions of the authors' own (Caffe) weights. Those expect channels in the
# order blue, green, red, from 0 to 255, minus these means; networks trained with torch expect red, green,
# blue in [0, 1], normalised.
CAFFE_NAMES = {".e1.": ".expand1x1.", ".e3.": ".expand3x3.", "head.": "classifier.1."}
CAFFE_MEAN_RGB = (123.0, 117.0, 104.0)
TORCH_MEAN_RGB = (0.485, 0.456, 0.406)
TORCH_STD_RGB = (0.229, 0.224, 0.225)


class SqueezeNetModel(CheckpointModel):
    """SqueezeNet 1.1.

    Args:
        checkpoint: A published ImageNet checkpoint, in single or half precision; None for random weights. Of
            one with the layer names of Caffe conversions (`e1`, `e3`, `head`), the different preprocessing of
            images is folded into the first layer, so that inputs are the same for both.
        n_classes: Number of outputs.
        input_shape: Shape of one example, `(3, height, width)`.
    """

    def __init__(
        self, checkpoint: str | None, n_classes: int = 1000, input_shape: Sequence[int] = (3, 224, 224)
    ) -> None:
        super().__init__(checkpoint, input_shape)
        self.n_classes = n_classes

    def build(self) -> nn.Module:
        """Returns the network with random weights."""
        return SqueezeNet(self.n_classes)

    def rename(self, state: State) -> State:
        """Maps the layer names and the first layer of a Caffe conversion to those of torch checkpoints."""
        if "head.weight" not in state:
            return state
        renamed = {}
        for name, value in state.items():
            for theirs, ours in CAFFE_NAMES.items():
                name = name.replace(theirs, ours)
            renamed[name] = value
        return _take_torch_inputs(renamed)


def _take_torch_inputs(state: State) -> State:
    """Rewrites the first layer from Caffe's inputs to torch's: exact, since the layer has no padding.

    With torch's input t, Caffe's is 255 * (std * t + mean) - caffe_mean, channels reversed.
    """
    weight, bias = state["features.0.weight"].double().flip(1), state["features.0.bias"].double()
    scale = 255 * torch.tensor(TORCH_STD_RGB, dtype=torch.float64)
    shift = 255 * torch.tensor(TORCH_MEAN_RGB, dtype=torch.float64) - torch.tensor(CAFFE_MEAN_RGB)
    bias = bias + (weight.sum((2, 3)) * shift).sum(1)
    weight = weight * scale[:, None, None]
    return {**state, "features.0.weight": weight.float(), "features.0.bias": bias.float()}


class SqueezeNet(nn.Module):
    """`(n, 3, h, w)` float32, normalised -> `(n, n_classes)` logits."""

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, n_classes, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, averaged over positions."""
        x = self.classifier(self.features(x))
        return torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, n_in: int, n_squeeze: int, n_expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(n_in, n_squeeze, 1)
        self.expand1x1 = nn.Conv2d(n_squeeze, n_expand, 1)
        self.expand3x3 = nn.Conv2d(n_squeeze, n_expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `(n, 2 * n_expand, h, w)`."""
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], 1)
