"""Makes torchvision, and what imports it, importable beside the CPU torch."""

from typing import Any

import torch


def declare_torchvision() -> None:
    """Declares torchvision's operators: those of PyPI's wheel do not load beside the CPU torch."""
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declare_torchvision.library = library  # type: ignore[attr-defined]  # lives as long as the process
    register = torch.library.register_fake

    def skip_torchvision(name: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *args, **kwargs)

    torch.library.register_fake = skip_torchvision
