"""ONNX nodes as plain Python objects, because the analysis reads them often and protobuf's access is slow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Attribute = int | float | str | tuple[int, ...]

# Domains whose operators the analysis knows: ONNX's, and those of onnxruntime's contrib and internal
# operators.
_DOMAINS = ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
_INT, _FLOAT, _STRING, _INTS = 2, 1, 3, 7  # onnx.AttributeProto.AttributeType


@dataclass(frozen=True, eq=False)
class Node:
    """One node.

    Attributes:
        name: Its name; its first output if it has none.
        op: Its operator, prefixed by the domain if the analysis does not know that, so that a foreign Conv is
            no Conv.
        domain: The operator's domain.
        inputs: Names of the tensors that it reads; `""` for an omitted optional input.
        outputs: Names of the tensors that it writes; `""` for an omitted optional output.
        attributes: Attributes by name, as far as they are numbers, strings or lists of integers.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def integer(self, name: str, default: int) -> int:
        """Returns the integer attribute `name`, or `default` if it is absent."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> tuple[int, ...]:
        """Returns the attribute `name`, a list of integers; empty if it is absent."""
        value = self.attributes.get(name, ())
        return value if isinstance(value, tuple) else ()

    def text(self, name: str) -> str:
        """Returns the string attribute `name`; empty if it is absent."""
        value = self.attributes.get(name, "")
        return value if isinstance(value, str) else ""


def nodes_of(protos: Iterable["onnx.NodeProto"]) -> tuple[Node, ...]:
    """Converts nodes from protobuf, in their order."""
    return tuple(map(node_of, protos))


def node_of(proto: "onnx.NodeProto") -> Node:
    """Converts one node from protobuf."""
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
    """Returns the nodes that some output depends on, in their order, which must be topological as in ONNX."""
    required, live = set(outputs), []
    for node in reversed(nodes):
        if not required.isdisjoint(filter(None, node.outputs)):
            required.update(node.inputs)
            live.append(node)
    return tuple(reversed(live))
