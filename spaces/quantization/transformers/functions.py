"""Model-local functions in a file, written as ONNX's text."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from spaces.quantization.formats.stored import SIMULATING

if TYPE_CHECKING:
    import onnx


def parsed(texts: Iterable[str], opset: int) -> "list[onnx.FunctionProto]":
    """Returns functions in standard operators of an opset.

    Args:
        texts: Their texts, in which `{domain}` and `{opset}` are filled in, and the axes of ReduceMax and ReduceMin: an attribute before
            opset 18, an input since.
        opset: The opset.
    """
    import onnx

    before, since = ("", ", axes") if opset >= 18 else (", axes: ints = @axes", "")
    values = {"domain": SIMULATING, "opset": opset, "axes_before_18": before, "axes_since_18": since}
    return [onnx.parser.parse_function(text.format(**values).strip()) for text in texts]


def add_functions(proto: "onnx.ModelProto", texts: Iterable[str]) -> None:
    """Adds functions, in place, that the model lacks."""
    from onnx import helper

    opset = next(int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    known = {function.name for function in proto.functions if function.domain == SIMULATING}
    proto.functions.extend(f for f in parsed(texts, opset) if f.name not in known)
    if all(o.domain != SIMULATING for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(SIMULATING, 1))
