"""Constraints between knobs: small boolean expressions over knob paths, parsed and never `eval`ed.

    quantize.format == 'qdq' or quantize.activation_bits == 8
    sum(quantize.weight_bits) <= 100

A per-layer knob stands for the list of its groups' values. A comparison or sum that touches an
inactive knob does not apply, so the constraint holds.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spaces.candidate import Value
from spaces.errors import SpaceError

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "sum": sum, "min": min, "max": max, "len": len, "all": all, "any": any,
}  # fmt: skip


class _InactiveError(Exception):
    """The expression touches a knob that is inactive."""


@dataclass(frozen=True)
class Constraint:
    """A condition on the values of several knobs.

    Attributes:
        name: Its key in the config.
        text: The expression.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        _ = self.paths  # parse now, so that a mistake is reported at start

    @cached_property
    def _tree(self) -> ast.expr:
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise SpaceError(f"space.constraints.{self.name}: cannot read {self.text!r}: {error}") from error

    @cached_property
    def paths(self) -> frozenset[str]:
        """The knob paths that the expression mentions."""
        return frozenset(self._find_paths(self._tree))

    def holds(self, values: Mapping[str, Value | list[Value]]) -> bool:
        """Whether the constraint holds. `values` maps knob paths to values; inactive ones are absent."""
        try:
            return bool(self._value(self._tree, values))
        except _InactiveError:
            return True
        except (TypeError, ZeroDivisionError, ValueError) as error:
            raise SpaceError(
                f"space.constraints.{self.name}: {self.text!r} cannot be computed: {error}"
            ) from error

    def _find_paths(self, node: ast.AST) -> list[str]:
        path = _dotted(node)
        if path is not None:
            return [] if path in ("true", "false", "null") else [path]
        if isinstance(node, ast.Call):
            return [p for arg in node.args for p in self._find_paths(arg)]
        return [p for child in ast.iter_child_nodes(node) for p in self._find_paths(child)]

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        path = _dotted(node)
        if path in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[path]
        if path is not None:
            if path not in values:
                raise _InactiveError
            return values[path]
        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple():
                return tuple(self._value(item, values) for item in node.elts)
            case ast.BoolOp():
                return self._boolean(node, values)
            case ast.UnaryOp(op=ast.Not()):
                return not self._value(node.operand, values)
            case ast.UnaryOp(op=ast.USub()):
                return -self._value(node.operand, values)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                return _ARITHMETIC[type(node.op)](
                    self._value(node.left, values), self._value(node.right, values)
                )
            case ast.Compare():
                return self._compare(node, values)
            case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*(self._value(arg, values) for arg in node.args))
        raise SpaceError(
            f"space.constraints.{self.name}: {ast.unparse(node)!r} is not allowed in {self.text!r}; use knob paths, "
            f"constants, and/or/not, comparisons, + - * / %, and {', '.join(_FUNCTIONS)}"
        )

    def _boolean(self, node: ast.BoolOp, values: Mapping[str, Any]) -> bool:
        parts = (self._value(part, values) for part in node.values)
        return all(parts) if isinstance(node.op, ast.And) else any(parts)

    def _compare(self, node: ast.Compare, values: Mapping[str, Any]) -> bool:
        items = [self._value(item, values) for item in (node.left, *node.comparators)]
        tests = [_COMPARE[type(op)] for op in node.ops]
        return all(test(a, b) for test, a, b in zip(tests, items, items[1:], strict=False))


def _dotted(node: ast.AST) -> str | None:
    """Returns `a.b.c` for a chain of names, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return None if head is None else f"{head}.{node.attr}"
    return None
