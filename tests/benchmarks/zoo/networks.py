"""The networks of the zoo sweep: by name, how each is built with random weights, and the shape of one example.

`timm`, `torchvision` and `transformers` are imported only when one of their networks is built.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zoo.libraries import declare_torchvision
from zoo.own import OWN
from zoo.text_and_speech import TRANSFORMERS

# name: input size (and arguments). A smaller input than the published one, where the architecture allows it.
TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet10t": (64, {}), "skresnet18": (64, {"layers": (1, 1, 1, 1)}), "res2net50_48w_2s": (64, {"layers": (1, 1, 1, 1)}), "res2next50": (64, {"layers": (1, 1, 1, 1)}), "resnest14d": (64, {}),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 2}), "deit_tiny_distilled_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "beit_base_patch16_224": (64, {"img_size": 64, "depth": 2, "embed_dim": 192, "num_heads": 3}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64, "depth": 2}), "cait_xxs24_224": (64, {"img_size": 64, "depth": 2}),
    "coat_tiny": (64, {"img_size": 64, "serial_depths": (1, 1, 1, 1), "parallel_depth": 1}), "coat_lite_tiny": (64, {"img_size": 64, "serial_depths": (1, 1, 1, 1)}), "pit_ti_224": (224, {"depth": (1, 1, 1)}),
    "convnext_atto": (64, {"depths": (1, 1, 1, 1)}), "convnextv2_atto": (64, {"depths": (1, 1, 1, 1)}), "ghostnet_050": (64, {}), "ghostnetv2_100": (64, {}), "ghostnetv3_050": (64, {}),
    "edgenext_xx_small": (64, {"depths": (1, 2, 2, 2)}), "maxvit_rmlp_pico_rw_256": (64, {"img_size": 64, "depths": (1, 1, 1, 1)}), "maxvit_pico_rw_256": (64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "coatnet_pico_rw_224": (64, {"img_size": 64, "depths": (1, 1, 1, 1)}), "shvit_s1": (64, {}), "mobilevit_xxs": (64, {}), "mobilevitv2_050": (64, {}),
    "levit_128s": (224, {"depth": (1, 1, 1)}), "swin_tiny_patch4_window7_224": (224, {"embed_dim": 48, "depths": (1, 1, 2, 1)}),
    "swinv2_cr_tiny_ns_224": (224, {"embed_dim": 48, "depths": (1, 1, 2, 1)}), "swinv2_tiny_window8_256": (64, {"img_size": 64, "embed_dim": 48, "depths": (1, 1, 2, 1), "window_size": 2}),
    "twins_svt_small": (64, {"img_size": 64, "depths": (1, 1, 1, 1)}), "pvt_v2_b0": (64, {"depths": (1, 1, 1, 1)}), "crossvit_9_240": (240, {"depth": ((1, 1, 0), (1, 1, 0), (1, 1, 0))}), "volo_d1_224": (64, {"img_size": 64}),
    "visformer_tiny": (64, {"img_size": 64}), "convit_tiny": (64, {"img_size": 64, "depth": 3}), "tnt_s_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "nest_tiny": (224, {}), "sequencer2d_s": (224, {"layers": (1, 1, 1, 1)}), "mixer_s32_224": (64, {"img_size": 64}), "resmlp_12_224": (64, {"img_size": 64}),
    "gmlp_ti16_224": (64, {"img_size": 64}), "davit_tiny": (64, {"depths": (1, 1, 1, 1)}), "gcvit_xxtiny": (224, {}), "mvitv2_tiny": (64, {"img_size": 64}),
    "tiny_vit_5m_224": (224, {"depths": (1, 1, 1, 1)}), "hiera_tiny_224": (224, {"stages": (1, 1, 1, 1)}), "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "vit_relpos_small_patch16_224": (64, {"img_size": 64, "depth": 2}), "rdnet_tiny": (64, {}), "nextvit_small": (64, {}),
    "focalnet_tiny_srf": (64, {}), "poolformer_s12": (64, {}), "caformer_s18": (64, {}), "convformer_s18": (64, {}), "fastvit_t8": (64, {"layers": (1, 1, 1, 1)}),
    "repvit_m0_9": (64, {}), "repghostnet_050": (64, {}), "repvgg_a0": (64, {}), "mobileone_s0": (64, {}), "efficientformer_l1": (224, {}),
    "efficientformerv2_s0": (224, {}), "efficientvit_b0": (64, {}), "efficientvit_m0": (224, {}), "swiftformer_xs": (64, {}), "starnet_s050": (64, {"depths": (1, 1, 1, 1)}),
    "fasternet_t0": (64, {"depths": (1, 1, 1, 1)}), "mambaout_femto": (64, {"depths": (1, 1, 1, 1)}), "inception_next_atto": (64, {"depths": (1, 1, 1, 1)}),
    "regnetx_002": (64, {}), "regnety_002": (64, {}), "nf_regnet_b0": (64, {}), "eca_nfnet_l0": (64, {}), "cs3darknet_s": (64, {}),
    "hgnetv2_b0": (64, {}), "halonet26t": (256, {}), "botnet26t_256": (256, {}), "lambda_resnet26t": (256, {}), "gcresnext26ts": (64, {}),
    "ese_vovnet19b_dw": (64, {}), "densenet121": (64, {"block_config": (2, 2, 2, 2)}), "dla46_c": (64, {}), "dpn48b": (64, {}), "selecsls42": (64, {}), "hrnet_w18_small": (64, {}),
    "xception41": (64, {}), "inception_v3": (96, {}), "mixnet_s": (64, {}), "lcnet_035": (64, {}), "tinynet_e": (64, {}), "rexnet_100": (64, {}),
    "mobilenetv2_035": (64, {}), "mobilenetv3_small_050": (64, {}), "mobilenetv4_conv_small_035": (64, {}), "efficientnet_lite0": (64, {}),
    "tf_efficientnetv2_b0": (64, {}), "mnasnet_small": (64, {}), "efficientnet_b0_gn": (64, {}), "resnetv2_50": (64, {"layers": (1, 1, 1, 1)}), "tresnet_m": (64, {"layers": (1, 1, 1, 1)}),
    "vit_tiny_r_s16_p8_224": (64, {"img_size": 64, "depth": 2}),
}  # fmt: skip

TORCHVISION: dict[str, int] = {
    "alexnet": 64, "googlenet": 64, "inception_v3": 96, "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "regnet_y_400mf": 64,
    "resnet18": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "swin_t": 64, "vit_b_16": 64, "convnext_tiny": 64,
    "densenet121": 64, "efficientnet_b0": 64, "maxvit_t": 224, "segmentation.lraspp_mobilenet_v3_large": 64,
    "segmentation.deeplabv3_mobilenet_v3_large": 64, "segmentation.fcn_resnet50": 64, "video.r3d_18": 0, "video.mvit_v1_b": 0,
}  # fmt: skip
# these run only with the published size; the architecture stays, width and depth shrink
TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "vit_b_16": {"image_size": 64},
    "googlenet": {"init_weights": False, "aux_logits": True},
    "inception_v3": {"init_weights": False, "aux_logits": True},
    "segmentation.lraspp_mobilenet_v3_large": {"weights_backbone": None},
    "segmentation.deeplabv3_mobilenet_v3_large": {"weights_backbone": None},
    "segmentation.fcn_resnet50": {"weights_backbone": None},
}


def networks() -> dict[str, tuple[int, ...]]:
    """Returns the names of all networks, `family:name`, with the shape of one example."""
    found = {f"own:{name}": shape for name, (_, shape) in OWN.items()}
    found |= {f"transformers:{name}": shape for name, (_, shape) in TRANSFORMERS.items()}
    found |= {f"timm:{name}": (3, size, size) for name, (size, _) in TIMM.items()}
    return found | {
        f"torchvision:{name}": (3, n, n) if n else (3, 8, 112, 112) for name, n in TORCHVISION.items() if n
    }


def network(name: str) -> nn.Module:
    """Returns a network with random weights, which no initializer has set to zero, and with BatchNorm statistics.

    Args:
        name: `family:name`, as `networks` returns it.
    """
    family, _, kind = name.partition(":")
    module = BUILDERS[family](kind).eval()
    _stir(module)
    _set_statistics(module, networks()[name])
    return module.eval()


def _own(kind: str) -> nn.Module:
    return OWN[kind][0]()


def _transformers(kind: str) -> nn.Module:
    return TRANSFORMERS[kind][0]()


def _timm(kind: str) -> nn.Module:
    declare_torchvision()
    return importlib.import_module("timm").create_model(kind, pretrained=False, **TIMM[kind][1])


def _torchvision(kind: str) -> nn.Module:
    declare_torchvision()
    place, _, function = f"torchvision.models.{kind}".rpartition(".")
    module = getattr(importlib.import_module(place), function)(
        weights=None, **TORCHVISION_ARGUMENTS.get(kind, {})
    )
    return FirstOutput(module) if kind.startswith("segmentation") else module


BUILDERS: dict[str, Callable[[str], nn.Module]] = {
    "own": _own, "transformers": _transformers, "timm": _timm, "torchvision": _torchvision,
}  # fmt: skip


class FirstOutput(nn.Module):
    """A segmentation network returns a dict."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)["out"]


def _stir(module: nn.Module) -> None:
    """Makes constant vectors random: initializers of zero or of 1e-6 (layer scale, last norms) would hide whole branches."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() < 2 and parameter.numel() > 1 and parameter.std() < 1e-5:
                scale = float(parameter.flatten()[0])
                if scale == 1:
                    parameter.uniform_(0.5, 1.5)
                elif 0 < abs(scale) < 1:
                    parameter.uniform_(0.1, 0.5)
                else:
                    parameter.normal_(scale, 0.1)


def _set_statistics(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Sets BatchNorm's statistics by random data."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # None: the mean of all batches
    with torch.no_grad():
        module(torch.randn(4, *shape))
