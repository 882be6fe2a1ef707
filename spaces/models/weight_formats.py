"""What an exported file says of weights that were trained to fit a format and lie in it as floats, e.g. ternary ones."""

import json
from typing import TYPE_CHECKING

from spaces.errors import InputError

if TYPE_CHECKING:
    import onnx
    import torch

KEY = "paredown.weight_formats"  # metadata: JSON, names of weights to names of formats


def record_formats(proto: "onnx.ModelProto", module: "torch.nn.Module") -> None:
    """Adds the formats of a module's layers, their attribute `weight_format`, to the file's metadata, in place."""
    marked = {name: getattr(part, "weight_format", None) for name, part in module.named_modules()}
    found = {f"{name}.weight": form for name, form in marked.items() if form is not None}
    if found:
        proto.metadata_props.add(key=KEY, value=json.dumps(found, sort_keys=True))


def trained_formats(proto: "onnx.ModelProto") -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns format and shape, in the file, of the weights that were trained to fit one and still are floats.

    Raises:
        InputError: The entry is damaged.
    """
    import onnx

    text = next((entry.value for entry in proto.metadata_props if entry.key == KEY), "{}")
    try:
        formats = {str(name): str(form) for name, form in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"the model's metadata {KEY!r} is damaged: {error}") from error
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    floats = {i.name: tuple(i.dims) for i in proto.graph.initializer if i.data_type in kinds}
    return {name: (form, floats[name]) for name, form in formats.items() if name in floats}
