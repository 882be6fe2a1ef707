"""A torch module as an ONNX model with a dynamic batch axis: by the first of torch's ways of exporting that works."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx
import torch

from spaces.models.exporters.batch_axis import with_batch_axis
from spaces.models.exporters.failure import Arguments, Cause, UnfitError, cause_of
from spaces.models.exporters.interface import Interface
from spaces.models.exporters.quiet import quiet
from spaces.models.exporters.same_outputs import check_outputs
from spaces.models.exporters.torchscript import torchscript_export
from spaces.models.onnx.opset import OPSET

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_ATEN = torch.ops.aten
_VIEWS = (
    *(_ATEN.view.default, _ATEN.reshape.default, _ATEN.flatten.using_ints, _ATEN.unflatten.int),
    *(_ATEN.view_as.default, _ATEN.reshape_as.default),
)
_LOGGER = logging.getLogger(__name__)
_SIZES = (2, 3)  # not 1, which torch treats as a constant


def to_onnx(module: torch.nn.Module, interface: Interface) -> onnx.ModelProto:
    """Exports a module: with a dynamic batch axis, else with fixed ones that are made one, else by TorchScript.

    The outputs of each file are compared with the module's own, for several batch sizes: an exporter may build the size of
    the example, or what a condition was for it, into the graph without a word.

    Args:
        module: The module, in eval mode.
        interface: Its inputs and outputs.

    Raises:
        UnfitError: No way works; the message names the layer and the reason.
    """
    with quiet():
        try:
            return _checked(_dynamic, module, interface)
        except Exception as error:  # torch's exporter raises errors of its own, of torch and of the module
            cause = cause_of(module, interface.batch(2), error)
        for way in () if cause.final else _DETOURS:
            try:
                return _checked(way, module, interface)
            except UnfitError as error:
                cause = Cause(str(error))
            except Exception as error:  # as above; the first way's is the one to tell
                _LOGGER.debug("%s: %s", way.__name__, error)
    raise UnfitError(cause.sentence)


def _checked(way: "_Way", module: torch.nn.Module, interface: Interface) -> onnx.ModelProto:
    proto = way(module, interface)
    check_outputs(proto, module, interface.batch)
    return proto


def _dynamic(module: torch.nn.Module, interface: Interface) -> onnx.ModelProto:
    return _converted(module, interface, interface.batch(2), interface.axes())


def _with_any_strides(module: torch.nn.Module, interface: Interface) -> onnx.ModelProto:
    """Copies before views: some depend on strides, which decompositions for ONNX change and ONNX does not have."""
    return _converted(_copying(module, interface.batch(2), interface.axes()), interface)


def _with_fixed_batches(module: torch.nn.Module, interface: Interface) -> onnx.ModelProto:
    """Exports with two fixed batch sizes: what differs is the batch axis."""
    first, second = (_converted(_copying(module, interface.batch(n)), interface) for n in _SIZES)
    return with_batch_axis(first, second, _SIZES)


_Way = Callable[[torch.nn.Module, Interface], onnx.ModelProto]
_DETOURS: tuple[_Way, ...] = (_with_any_strides, _with_fixed_batches, torchscript_export)


def _copying(module: torch.nn.Module, arguments: Arguments, axes: Any = None) -> "ExportedProgram":
    program = torch.export.export(module, arguments[0], arguments[1], dynamic_shapes=axes, strict=False)
    for node in program.graph.nodes:
        if node.target not in _VIEWS:
            continue
        with program.graph.inserting_before(node):
            copy = program.graph.call_function(
                _ATEN.clone.default, node.args[:1], {"memory_format": torch.contiguous_format}
            )
        copy.meta = dict(node.args[0].meta)
        node.args = (copy, *node.args[1:])
    program.graph_module.recompile()
    return program


def _converted(
    model: "torch.nn.Module | ExportedProgram",
    interface: Interface,
    arguments: Arguments = ((), {}),
    axes: Any = None,
) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        arguments[0],
        kwargs=arguments[1],
        dynamo=True,
        dynamic_shapes=axes,
        opset_version=OPSET,
        optimize=False,
        verbose=False,
        **interface.names(),
    )
    assert program is not None
    return program.model_proto
