"""What a trial reserves of a Ray cluster, how many trials that lets run at once, and why none could run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spaces.errors import ConfigError
from spaces.units import parse_bytes

_BUILT_IN = {"CPU": "cpus_per_trial", "GPU": "gpus_per_trial", "memory": "memory_per_trial"}
_OF_RAY = ("node:", "object_store_memory", "accelerator_type:")  # that no user asks for
_GIB = 2**30


@dataclass(frozen=True)
class Node:
    """A living node of a cluster.

    Attributes:
        name: Its address, for messages.
        resources: Total amount of each resource by Ray's name: `CPU`, `GPU`, `memory` in bytes, custom ones.
        id: Ray's id of it.
    """

    name: str
    resources: Mapping[str, float]
    id: str = ""

    def text(self) -> str:
        """Returns its resources in words."""
        amounts = [_amount(name, self.resources[name]) for name in _BUILT_IN if self.resources.get(name)]
        own = sorted(n for n in self.resources if n not in _BUILT_IN and not n.startswith(_OF_RAY))
        return f"{self.name}: {', '.join([*amounts, *(_amount(n, self.resources[n]) for n in own)]) or 'nothing'}"


@dataclass(frozen=True)
class TrialResources:
    """What a trial reserves of one node.

    Attributes:
        cpus: CPUs; 0 reserves none.
        gpus: GPUs; a fraction lets trials share one. Ray counts them, and does not limit the memory that a trial uses.
        memory_bytes: Memory; None reserves none. Ray counts it, and does not limit it.
        custom: Custom resources by name, as in `ray start --resources`.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(
        cls, cpus: float, gpus: float, memory: str | int | None, custom: Mapping[str, Any] | None
    ) -> "TrialResources":
        """Reads the config's `executor.*_per_trial`.

        Raises:
            ConfigError: An amount is negative, no number, or a fraction that Ray does not take.
        """
        checked = {
            f"resources_per_trial.{name}": _number(amount, f"resources_per_trial.{name}")
            for name, amount in (custom or {}).items()
        }
        amounts = {
            "cpus_per_trial": _number(cpus, "cpus_per_trial"),
            "gpus_per_trial": _number(gpus, "gpus_per_trial"),
            **checked,
        }
        for key, amount in amounts.items():
            if amount > 1 and amount != int(amount):
                raise ConfigError(
                    f"executor.{key}={amount:g}: Ray takes a fraction below 1 or a whole number"
                )
        for name in custom or {}:
            if name in _BUILT_IN:
                raise ConfigError(
                    f"executor.resources_per_trial.{name}: that is executor.{_BUILT_IN[name]}; "
                    "custom resources have names of their own"
                )
        return cls(
            amounts["cpus_per_trial"],
            amounts["gpus_per_trial"],
            None if memory is None else parse_bytes(memory, "executor.memory_per_trial"),
            {name: checked[f"resources_per_trial.{name}"] for name in custom or {}},
        )

    def options(self) -> dict[str, Any]:
        """Returns Ray's options of an actor or a task."""
        memory = {} if self.memory_bytes is None else {"memory": self.memory_bytes}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.custom), **memory}

    def slots(self, nodes: Sequence[Node], workers: int | None) -> int:
        """Returns how many trials run at once.

        Args:
            nodes: The cluster's nodes.
            workers: `executor.workers`: most trials at once; None takes what the nodes have room for.

        Raises:
            ConfigError: No node could ever run a trial, or a trial reserves nothing and `workers` is None.
        """
        needed = self._needed()
        if not needed:
            if workers is None:
                raise ConfigError(
                    "executor.workers must be given where a trial reserves nothing (executor.cpus_per_trial=0): "
                    "no resource says how many run at once"
                )
            return workers
        room = sum(self._fitting(node, needed) for node in nodes)
        if room == 0:
            raise ConfigError(self._infeasible(nodes, needed))
        return room if workers is None else min(room, workers)

    def _needed(self) -> dict[str, float]:
        """Returns the amounts above 0 by Ray's names."""
        every = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes or 0), **self.custom}
        return {name: amount for name, amount in every.items() if amount > 0}

    def _fitting(self, node: Node, needed: Mapping[str, float]) -> int:
        # amounts are compared as Ray does, in ten-thousandths: 3 times 0.1 fit into 0.3
        return min(
            round(node.resources.get(name, 0.0) * 10_000) // max(1, round(amount * 10_000))
            for name, amount in needed.items()
        )

    def _infeasible(self, nodes: Sequence[Node], needed: Mapping[str, float]) -> str:
        wanted = ", ".join(f"executor.{_key(name)}={_value(name, a)}" for name, a in needed.items())
        return f"{wanted}: no node of the Ray cluster could ever run a trial. {cluster_text(nodes)}"


def cluster_text(nodes: Sequence[Node]) -> str:
    """Returns what a cluster has: one sentence."""
    if not nodes:
        return "The cluster has no living node"
    listed = "; ".join(node.text() for node in nodes[:8])
    more = f"; and {len(nodes) - 8} more" if len(nodes) > 8 else ""
    return f"The cluster has {len(nodes)} node{'s' if len(nodes) > 1 else ''}: {listed}{more}"


def nodes_of(listed: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Returns the living nodes of what `ray.nodes()` returned."""
    return [
        Node(
            str(node["NodeManagerAddress"]),
            {str(k): float(v) for k, v in node["Resources"].items()},
            str(node["NodeID"]),
        )
        for node in listed
        if node["Alive"]
    ]


def _number(amount: Any, key: str) -> float:
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < float("inf"):
        raise ConfigError(f"executor.{key} must be a number of at least 0, not {amount!r}")
    return float(amount)


def _key(name: str) -> str:
    return _BUILT_IN.get(name, f"resources_per_trial.{name}")


def _value(name: str, amount: float) -> str:
    return f"{amount / _GIB:.3g} GiB" if name == "memory" else f"{amount:g}"


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / _GIB:.1f} GiB memory"
    plural = "s" if name in ("CPU", "GPU") and amount != 1 else ""
    return f"{amount:g} {name}{plural}"
