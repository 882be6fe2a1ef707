"""The network of a request: which one it is, what it takes, and what it yields, as far as its file says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.task.output_choice import last_operator
from search.planning.config.group_files import files_of
from search.planning.config.shipped import shipped
from search.requests.choices import Choices, values_of
from spaces.errors import InputError, unknown_name
from spaces.models.layers import layers, recurrent_layers
from spaces.stages.artifact import InputSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]
"""Shape of one example; an open axis is 0."""

_TORCH = (".pt", ".pth", ".th", ".ckpt", ".jit", ".safetensors")
_KINDS = ("onnx", "torch")  # of the group `model`, the files that are no network
_MATRICES = ("Gemm", "MatMul", "LSTM")
_SHAPE = "model.input_shape"


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        shape: Shape for one example.
        is_probability: Whether it ends in a Sigmoid.
        time_first: Whether the examples are on its second axis.
    """

    shape: Shape
    is_probability: bool = False
    time_first: bool = False


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        inputs: Its inputs; empty if they are not known.
        outputs: Its outputs by name; empty if they are not known.
        folder: The folder of its file; None for a network of the zoo, which is trained on the data.
        given: Whether `model.input_shape` says shapes of its inputs.
        multiplies_matrices: Whether at least half of the weights are those of matrix products and LSTM.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: Mapping[str, Output] = field(default_factory=dict)
    folder: Path | None = None
    given: bool = False
    multiplies_matrices: bool = False

    @classmethod
    def of_model(cls, proto: "onnx.ModelProto", folder: Path) -> "Network":
        """Returns what an ONNX model says. Raises InputError if it has no input."""
        inputs = InputSpec.of_graph(proto.graph).tensors
        outputs = _outputs(proto, inputs[0].name)
        return cls(inputs, outputs, folder, multiplies_matrices=_multiplies_matrices(proto))

    def with_shapes(self, shapes: Mapping[str, Sequence[int]] | Sequence[int]) -> "Network":
        """Returns the network with these shapes of its inputs by name, or this one of the first input."""
        named = shapes if isinstance(shapes, Mapping) else {self.inputs[0].name: shapes}
        inputs = tuple(replace(i, shape=tuple(named.get(i.name, i.shape))) for i in self.inputs)
        return replace(self, inputs=inputs, given=True)

    @property
    def shape(self) -> Shape:
        """Shape of one example of the first input; empty if it is not known."""
        return self.inputs[0].shape if self.inputs else ()

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of one example of each input, by name."""
        return {i.name: i.shape for i in self.inputs}

    @property
    def takes(self) -> str:
        """The inputs as text."""
        return ", ".join(f"{i.name} {list(i.shape)} {i.dtype}" for i in self.inputs) or "inputs of any shape"

    @property
    def yields(self) -> str:
        """The outputs as text."""
        return ", ".join(f"{name} {list(o.shape)}" for name, o in self.outputs.items())

    @property
    def picture(self) -> tuple[int, int, int, str] | None:
        """Channels, height and width of images that it takes, and their layout; None if it takes no grey or RGB images."""
        shape = self.shape
        if len(shape) != 3 or len(self.inputs) != 1:
            return None
        for channels, height, width, layout in ((*shape, "NCHW"), (shape[2], shape[0], shape[1], "NHWC")):
            if channels in (1, 3):
                return channels, height, width, layout
        return None


def model_choices(model: str, words: Sequence[str] = ()) -> tuple[Choices, Network]:
    """Returns the choice of a model, and what it takes and yields.

    Args:
        model: An ONNX file, or a name of the zoo.
        words: Overrides, among which `model.input_shape` may be.

    Raises:
        InputError: It is neither.
    """
    zoo = {name: file for name, file in files_of("model", [shipped()]).items() if name not in _KINDS}
    said = values_of(words).get(_SHAPE)
    given = said if isinstance(said, list | dict) else None
    if model in zoo:
        return Choices({"model": model}), Network(_inputs(given or zoo[model].content().get("input_shape")))
    network = _of_file(model, zoo)
    chosen = Choices({"model": "onnx"}, {"model.checkpoint": model})
    return chosen, network.with_shapes(given) if given else network


def _inputs(shape: Any) -> tuple[TensorSpec, ...]:
    """Returns the inputs of a network of the zoo, whose config has a shape, or shapes by name."""
    if isinstance(shape, Mapping):
        return tuple(TensorSpec(tuple(of), str(name)) for name, of in shape.items())
    return (TensorSpec(tuple(shape)),) if isinstance(shape, list | tuple) else ()


def _of_file(model: str, zoo: Mapping[str, Any]) -> Network:
    from spaces.models.onnx_file import read_onnx

    path = Path(model).expanduser()
    if path.suffix.lower() in _TORCH:
        raise InputError(
            f"{model} is a checkpoint of torch by its name, which does not hold the network: paredown model=torch model.cls=PACKAGE.CLASS "
            f"model.checkpoint={model} 'model.input_shape=[...]', or search.quantize(module, loader) in Python"
        )
    if path.suffix.lower() != ".onnx" and not path.exists():
        raise InputError(unknown_name("model", model, zoo) + " Or an ONNX file")
    return Network.of_model(read_onnx(path), path.parent)


def _multiplies_matrices(proto: "onnx.ModelProto") -> bool:
    """Whether at least half of the weights are those of matrix products and LSTM, which have dynamic kernels of their own."""
    found = [*layers(proto), *recurrent_layers(proto)]
    sizes = {layer.name: prod(layer.weight_shape) for layer in found}
    products = {layer.name for layer in found if layer.op_type in _MATRICES}
    return 2 * sum(sizes[name] for name in products) >= sum(sizes.values()) > 0


def _outputs(proto: "onnx.ModelProto", first_input: str) -> dict[str, Output]:
    """Returns the outputs; the examples' axis is the first, or the second if that has the name of the first input's."""
    (batch,) = (v.type.tensor_type.shape.dim[:1] for v in proto.graph.input if v.name == first_input)
    name = batch[0].dim_param if batch else ""
    outputs = {}
    for value in proto.graph.output:
        axes = value.type.tensor_type.shape.dim
        time_first = bool(name) and [axis.dim_param == name for axis in axes[:2]] == [False, True]
        sizes = [axis.dim_value for axis in axes]
        shape = (*sizes[:1], *sizes[2:]) if time_first else tuple(sizes[1:])
        is_probability = last_operator(proto, value.name) == "Sigmoid"
        outputs[value.name] = Output(shape, is_probability, time_first)
    return outputs
