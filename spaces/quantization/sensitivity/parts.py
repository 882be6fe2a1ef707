"""Parts of a float network, from one node to its outputs, with inputs for noise and for the weights of layers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.ort_session import ort_session
from spaces.models.onnx.subgraphs import names_read
from spaces.quantization.plan.source import Source
from spaces.stages.artifact import Split

if TYPE_CHECKING:
    import onnx

MAX_INPUTS = 2**18  # input values of all examples
MAX_EXAMPLES, MIN_EXAMPLES = 8, 2
N_PARTS = 8  # of a network: nodes before the one that changes do not run again

Arrays32 = dict[str, NDArray[np.float32]]


def first_nodes(n_nodes: int) -> list[int]:
    """Returns the positions of the nodes that the parts begin with."""
    n_parts = min(N_PARTS, n_nodes)
    return [n_nodes * k // n_parts for k in range(n_parts)]


class Part:
    """The network from one node on, with inputs for noise on given tensors and for given weights.

    Args:
        source: The float model.
        first: Position of the first node.
        tensors: Tensors that get an input for noise.
        weights: Layers whose weight becomes an input.
        values: Values of the earlier tensors that the part reads, for runs that give no others.

    Attributes:
        reads: The earlier tensors that the part reads.
    """

    def __init__(
        self, source: Source, first: int, tensors: Sequence[str], weights: set[str], values: Arrays32
    ) -> None:
        from onnx import helper

        proto = judged(source)
        graph, read = proto.graph, read_after(proto, first)
        self.reads = tuple(read)
        results = {o.name for o in graph.output}
        del graph.node[:first], graph.input[:]
        for name in read:
            kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, None))
        used = {name for node in graph.node for name in names_read(node)} | results
        kept = [i for i in graph.initializer if i.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        self._outputs = _with_noise(proto, tensors, weights)
        self._session = ort_session(proto)
        self._feeds = {name: values[name] for name in read}

    def run(self, feeds: Arrays32) -> list[NDArray[np.float32]]:
        """Returns the network's outputs."""
        return list(self._session.run(self._outputs, self._feeds | feeds))


def judged(source: Source) -> "onnx.ModelProto":
    """Returns the network with the output that the task judges as its only one."""
    proto, name = source.artifact.proto(), source.artifact.input.output.name
    kept = [output for output in proto.graph.output if output.name == name]
    if kept:
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
    return proto


def read_after(proto: "onnx.ModelProto", first: int) -> list[str]:
    """Returns the earlier tensors that the nodes from `first` on, or the graph's outputs, read."""
    graph = proto.graph
    nodes = list(graph.node)
    known = {i.name for i in graph.initializer} | {name for node in nodes[first:] for name in node.output}
    read = (*(name for node in nodes[first:] for name in names_read(node)), *(o.name for o in graph.output))
    return [name for name in dict.fromkeys(read) if name and name not in known]


def outputs_by_part(nodes: "Sequence[onnx.NodeProto]", firsts: Sequence[int]) -> list[set[str]]:
    """Returns the names of the tensors that each part's own nodes write."""
    ends = (*firsts[1:], len(nodes))
    return [
        {name for node in nodes[first:end] for name in node.output}
        for first, end in zip(firsts, ends, strict=True)
    ]


def values_of(source: Source, split: Split, names: set[str]) -> Arrays32:
    """Runs the network on a few examples. Returns the named tensors, the inputs and the output."""
    n = int(np.clip(MAX_INPUTS // source.artifact.input.size, MIN_EXAMPLES, MAX_EXAMPLES))
    return next(values_by_batch(source, split, names, n, n))[0]


def values_by_batch(
    source: Source, split: Split, names: set[str], batch_size: int, n_examples: int
) -> Iterator[tuple[Arrays32, int]]:
    """Runs the network on examples in batches.

    Args:
        source: The float model.
        split: The examples.
        names: Tensors whose values are wanted.
        batch_size: Examples per batch, unless the model declares another number.
        n_examples: Examples in all.

    Yields:
        The named tensors, the inputs and the output of each batch, and its number of examples: where the model declares a
        number, the last ones of a batch may be repetitions.
    """
    proto, spec = judged(source), source.artifact.input
    results = [o.name for o in proto.graph.output]
    inputs = {i.name for i in proto.graph.input}
    wanted = [*results, *sorted(names - inputs - set(results))]
    for name in wanted[len(results) :]:
        proto.graph.output.add().name = name  # the type is inferred
    session = ort_session(proto)
    declared = next(i for i in session.get_inputs() if i.name == spec.name).shape[0]
    size = declared if isinstance(declared, int) else batch_size
    for batch, _ in split.batches(size, n_examples):
        feeds = spec.feeds(batch)
        n = len(next(iter(feeds.values())))
        if isinstance(declared, int):
            feeds = {name: np.resize(array, (declared, *array.shape[1:])) for name, array in feeds.items()}
        yield dict(zip(wanted, session.run(wanted, feeds), strict=True)) | feeds, n


def noise_name(tensor: str) -> str:
    """Returns the name of the input for noise on a tensor."""
    return f"{tensor}/noise"


def _with_noise(proto: "onnx.ModelProto", tensors: Iterable[str], weights: set[str]) -> list[str]:
    """Adds an input for noise on each tensor, in place, and turns the given weights into inputs.

    No noise is added to zeros, since every grid represents them exactly.

    Returns:
        The names of the outputs.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, wanted = proto.graph, set(tensors)
    results = [o.name for o in graph.output]
    nodes = list(graph.node)
    del graph.node[:], graph.output[:]

    def add(tensor: str) -> None:
        noise = noise_name(tensor)
        graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), noise))
        graph.input.append(helper.make_tensor_value_info(noise, TensorProto.FLOAT, None))
        graph.node.append(helper.make_node("Sign", [tensor], [f"{noise}/sign"]))
        graph.node.append(helper.make_node("Mul", [noise, f"{noise}/sign"], [f"{noise}/kept"]))
        graph.node.append(helper.make_node("Add", [tensor, f"{noise}/kept"], [f"{noise}/sum"]))

    for tensor in (i.name for i in list(graph.input) if i.name in wanted):
        add(tensor)
    for node in nodes:
        for i, name in enumerate(node.input):
            if name in wanted:
                node.input[i] = f"{noise_name(name)}/sum"
        graph.node.append(node)
        for tensor in node.output:
            if tensor in wanted:
                add(tensor)
    for initializer in graph.initializer:
        if initializer.name in weights:
            info = helper.make_tensor_value_info(initializer.name, TensorProto.FLOAT, list(initializer.dims))
            graph.input.append(info)
    outputs = [f"{noise_name(r)}/sum" if r in wanted else r for r in results]
    for name in dict.fromkeys(outputs):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    del graph.value_info[:]
    return outputs
