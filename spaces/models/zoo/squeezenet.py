"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360), with the layer names of the published checkpoints."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spaces.models.checkpoint import CheckpointModel
from spaces.models.state_dict import State

# Other names for the same layers, as conversions of the authors' file use them.
OTHER_NAMES = {".e1.": ".expand1x1.", ".e3.": ".expand3x3.", "head.": "classifier.1."}


class SqueezeNetModel(CheckpointModel):
    """SqueezeNet 1.1.

    Args:
        checkpoint: A published ImageNet checkpoint, in single or half precision; None for random weights.
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
        """Maps the short names of converted checkpoints to the published ones."""
        renamed = {}
        for name, value in state.items():
            for other, ours in OTHER_NAMES.items():
                name = name.replace(other, ours) if other in name else name
            renamed[name] = value
        return renamed


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
        """Returns logits, averaged over places."""
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
