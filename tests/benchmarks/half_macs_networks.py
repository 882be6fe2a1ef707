"""The networks of `half_macs.py`, for 32x32 colour images in ten classes."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from spaces.models.zoo.cifar_resnet import CifarResNet


class Vgg(nn.Module):
    """A plain chain of 3x3 convolutions with BatchNorm, and two linear layers (Simonyan & Zisserman 2014, arXiv 1409.1556)."""

    def __init__(self, widths: Sequence[int] = (48, 96, 160), hidden: int = 96, n_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *widths), widths, strict=False):
            for n_in in (before, width):
                layers += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten())
        linear = nn.Linear(widths[-1] * 16, hidden), nn.Linear(hidden, n_classes)
        self.classifier = nn.Sequential(linear[0], nn.ReLU(), linear[1])

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.classifier(self.features(x))  # type: ignore[no-any-return]


class DsCnn(nn.Module):
    """Depthwise-separable convolutions (Zhang et al. 2017, arXiv 1711.07128), here for images."""

    def __init__(
        self, width: int = 48, strides: Sequence[int] = (1, 1, 2, 1, 2, 1, 1, 2), n_classes: int = 10
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_normalised(nn.Conv2d(3, width, 3, padding=1, bias=False))]
        for stride in strides:
            wider = width * stride
            layers += _normalised(nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False))
            layers += _normalised(nn.Conv2d(width, wider, 1, bias=False))
            width = wider
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.classifier(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()


# By name: the published checkpoint, None where the benchmark trains the network itself, and the network.
NETWORKS: dict[str, tuple[str | None, Callable[[], nn.Module]]] = {
    "resnet20": ("resnet20-12fca82f.th", lambda: CifarResNet(20)),
    "resnet32": ("resnet32-d509ac18.th", lambda: CifarResNet(32)),
    "vgg": (None, Vgg),
    "ds_cnn": (None, DsCnn),
}
