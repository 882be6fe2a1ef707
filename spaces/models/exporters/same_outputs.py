"""Compares an exported model with the module that it came of."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from spaces.models.exporters.failure import Arguments, UnfitError, call
from spaces.models.onnx.ort_session import ort_session
from spaces.stages.torch_outputs import tensors_of

# Batch sizes, that of the example first, and the sign or size of the numbers in them.
_RUNS = ((2, 1.0), (2, -1.0), (1, -1.0), (5, 10.0))
_TOLERANCE = (
    1e-2  # of the norm: sums are added up in another order, and a rounded number may fall to the other side
)

_ROUNDING = 1e-6


def check_outputs(proto: onnx.ModelProto, module: torch.nn.Module, batch: Callable[[int], Arguments]) -> None:
    """Runs both on batches of several sizes, of random numbers of both signs and several magnitudes.

    Args:
        proto: The exported model.
        module: The module, in eval mode.
        batch: Returns arguments of the module for a batch of a size: their shapes and types count. Those by name have the
            names of the file's inputs.

    Raises:
        UnfitError: Outputs differ; the message says whether only for other batch sizes.
    """
    session = ort_session(proto)
    names = [i.name for i in session.get_inputs()]
    random = torch.Generator().manual_seed(0)
    for n, scale in _RUNS:
        given, named = batch(n)
        arguments = (
            tuple(_random(t, scale, random) for t in given),
            {name: _random(t, scale, random) for name, t in named.items()},
        )
        expected = _own(module, arguments)
        if expected is not None and abs(scale) > 1 and _amplifies_rounding(module, arguments, expected):
            arguments = _scaled(arguments, 1 / scale)
            expected = _own(module, arguments)
        if expected is None:
            continue  # it does not take such numbers
        feeds = arguments[1] or dict(zip(names, arguments[0], strict=True))
        try:
            actual = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise UnfitError(_reason(n)) from error
        if not _all_close(actual, expected) and not _is_random(module, arguments, expected):
            raise UnfitError(_reason(n))


def _amplifies_rounding(module: torch.nn.Module, arguments: Arguments, before: list[NDArray[Any]]) -> bool:
    """Whether the module gives other outputs for inputs that differ by little more than rounding: then no file gives the same."""
    return not _all_close(_own(module, _scaled(arguments, 1 + _ROUNDING)), before)


def _scaled(arguments: Arguments, factor: float) -> Arguments:
    """Returns arguments whose numbers are multiplied by a factor; whole numbers stay."""

    def scaled(t: torch.Tensor) -> torch.Tensor:
        return t * factor if t.is_floating_point() else t

    return tuple(map(scaled, arguments[0])), {name: scaled(t) for name, t in arguments[1].items()}


def _is_random(module: torch.nn.Module, arguments: Arguments, before: list[NDArray[Any]]) -> bool:
    """Whether the module gives other outputs than before."""
    return not _all_close(_own(module, arguments, seed=1), before)


def _own(module: torch.nn.Module, arguments: Arguments, seed: int = 0) -> list[NDArray[Any]] | None:
    """Returns the module's outputs, None if it raises an error; torch's random state stays as it is."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = tensors_of(call(module, arguments))
    except Exception:  # the module's own
        return None
    return [(t.float() if t.is_floating_point() else t).numpy() for t in found]


def _random(like: torch.Tensor, scale: float, random: torch.Generator) -> torch.Tensor:
    """Returns random numbers of a tensor's shape and type; those of a negative scale are all negative."""
    if not like.is_floating_point():  # 0 and 1 are indices of any table
        return torch.randint(0, 2, like.shape, generator=random).to(like.dtype)
    values = torch.randn(like.shape, generator=random)
    return ((values.abs() if scale < 0 else values) * scale).to(like.dtype)


def _reason(size: int) -> str:
    if size == _RUNS[0][0]:
        return "the exported file gives other outputs than the network: what it does depends on its input's values"
    return "the batch size is built into its graph, and the exported file is wrong for batches of other sizes"


def _all_close(actual: Sequence[NDArray[Any]] | None, expected: Sequence[NDArray[Any]]) -> bool:
    return actual is not None and all(_close(a, b) for a, b in zip(actual, expected, strict=False))


def _close(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    finite = np.isfinite(expected)
    if actual.shape != expected.shape or not np.array_equal(np.isfinite(actual), finite):
        return False
    difference = np.linalg.norm(actual[finite].astype(np.float64) - expected[finite])
    return bool(difference <= _TOLERANCE * np.linalg.norm(expected[finite]) + 1e-6)
