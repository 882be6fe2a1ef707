"""ONNX nodes as plain Python objects: an analysis asks them thousands of questions, and protobuf answers slowly."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Attribute = int | float | str | tuple[int, ...]

# Domains whose operators the analysis knows: ONNX's, and those that onnxruntime adds or rewrites graphs into.
_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
_INT, _FLOAT, _STRING, _INTS = 2, 1, 3, 7  # onnx.AttributeProto.AttributeType


@dataclass(frozen=True, eq=False)
class Node:
    """One node.

    Attributes:
        name: Its name; its first output where it has none.
        op: Its operator; with the domain before it where that is a foreign one, so that a foreign Conv is no Conv.
        domain: The operator's domain.
        inputs: Tensors that it reads, `""` where it leaves one out.
        outputs: Tensors that it writes, likewise.
        attributes: Numbers, texts and lists of integers by name.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def integer(self, name: str, default: int) -> int:
        """Returns the integer attribute `name`."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> tuple[int, ...]:
        """Returns the attribute `name`, a list of integers; empty where it is not given."""
        value = self.attributes.get(name, ())
        return value if isinstance(value, tuple) else ()

    def text(self, name: str) -> str:
        """Returns the attribute `name`, a text; empty where it is not given."""
        value = self.attributes.get(name, "")
        return value if isinstance(value, str) else ""


def nodes_of(protos: Iterable["onnx.NodeProto"]) -> tuple[Node, ...]:
    """Reads nodes, in their order."""
    return tuple(map(node_of, protos))


def node_of(proto: "onnx.NodeProto") -> Node:
    """Reads one node."""
    op, domain, outputs = proto.op_type, proto.domain, tuple(proto.output)
    return Node(
        proto.name or next(filter(None, outputs), op),
        op if domain in _DOMAINS else f"{domain}.{op}",
        domain,
        tuple(proto.input),
        outputs,
        dict(_attributes(proto)),
    )


def _attributes(proto: "onnx.NodeProto") -> Iterable[tuple[str, Attribute]]:
    for attribute in proto.attribute:
        kind = attribute.type
        if kind == _INT:
            yield attribute.name, attribute.i
        elif kind == _INTS:
            yield attribute.name, tuple(attribute.ints)
        elif kind == _STRING:
            yield attribute.name, attribute.s.decode(errors="replace")
        elif kind == _FLOAT:
            yield attribute.name, attribute.f


def live_nodes(nodes: tuple[Node, ...], outputs: Iterable[str]) -> tuple[Node, ...]:
    """Returns the nodes that some output needs, in their order (ONNX's: whoever writes comes before who reads)."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(filter(None, node.outputs)):
            needed.update(node.inputs)
            found.append(node)
    return tuple(reversed(found))
