"""The tree of proposed candidates: an inner node is a knob, an edge is a value, a path is a candidate."""

from bisect import bisect_left, insort
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

_MAX_VALUES = 100_000  # a knob with more values is treated as continuous


class Node:
    """The node after a prefix of a candidate.

    Attributes:
        name: The knob that is asked next; None until it is known.
        left: Its values (Optuna's internal representation, ascending) under which some candidate was not
            proposed yet.
        children: Value to node, for values that were proposed.
        closed: Whether every candidate below was proposed.
    """

    __slots__ = ("children", "closed", "distribution", "left", "name", "parent", "value", "values")

    def __init__(self, parent: "Node | None" = None, value: float = 0.0) -> None:
        self.parent, self.value = parent, value
        self.name: str | None = None
        self.distribution: BaseDistribution | None = None
        self.values: list[float] | None = []  # all values of the knob; None if they cannot be listed
        self.left: list[float] = []
        self.children: dict[float, Node] = {}
        self.closed = False

    def expand(self, name: str, distribution: BaseDistribution) -> None:
        """Sets the knob that comes next, and its values."""
        if self.name == name and self.distribution == distribution:
            return
        if self.name != name:
            self.children = {}
        self.name, self.distribution = name, distribution
        self.values = grid_values(distribution)
        self.left = [v for v in self.values or () if v not in self.children or not self.children[v].closed]
        if self.left or self.values is None:
            self.reopen()
        else:
            self.close()

    def child(self, value: float) -> "Node":
        """Returns the node under a value, creating it if there is none."""
        return self.children.setdefault(value, Node(self, value))

    def close(self) -> None:
        """Marks all candidates below as proposed, and ancestors whose last open child this was."""
        if self.closed:
            return
        self.closed = True
        parent = self.parent
        if parent is None:
            return
        if _holds(parent.left, self.value):
            del parent.left[bisect_left(parent.left, self.value)]
        if not parent.left and parent.values is not None:
            parent.close()

    def reopen(self) -> None:
        """Undoes `close`: a trial has further knobs after what was taken for a complete candidate."""
        if not self.closed:
            return
        self.closed = False
        if self.parent is not None:
            if _holds(self.parent.values or [], self.value):
                insort(self.parent.left, self.value)
            self.parent.reopen()


def _holds(ascending: list[float], value: float) -> bool:
    at = bisect_left(ascending, value)
    return at < len(ascending) and ascending[at] == value


class ProposalTree:
    """The tree of one study at a time; each finished trial is read once."""

    def __init__(self) -> None:
        self._order: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._root = Node()
        self._study: tuple[str, datetime | None] | None = None
        self._n_read = 0
        self._unfinished: set[int] = set()
        self._synced_for: int | None = None

    @property
    def exhausted(self) -> bool:
        """Whether every candidate was proposed."""
        return self._root.closed

    def sync(self, study: Study, current: int | None = None) -> None:
        """Adds the candidates of trials since the last call, of all but the trial numbered `current`."""
        trials = study.get_trials(deepcopy=False)
        identity = (study.study_name, trials[0].datetime_start if trials else None)
        if self._study != identity or len(trials) < self._n_read:
            self._forget()
            self._study = identity
        for number in sorted(self._unfinished | set(range(self._n_read, len(trials)))):
            trial = trials[number]
            if number != current and trial.state != TrialState.WAITING:
                self._read(trial)
            if trial.state.is_finished():
                self._unfinished.discard(number)
            else:
                self._unfinished.add(number)
        self._n_read = len(trials)
        self._synced_for = current

    def _read(self, trial: FrozenTrial) -> None:
        node, rest = self._root, dict(trial.distributions)
        while rest:
            name = node.name if node.name in rest else self._first(rest)
            distribution = rest.pop(name)
            if node.name is None:
                node.expand(name, distribution)
            elif node.name != name:
                return  # the trial lacks a knob that is asked for here: it is no candidate of this space
            node = node.child(internal(distribution, trial.params[name]))
        if node.name is None:
            node.close()

    def _first(self, names: Mapping[str, Any]) -> str:
        known = [name for name in self._order if name in names]
        return known[0] if known else next(iter(names))

    def descend(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Node:
        """Returns the node after the trial's values so far, expanded by the knob that is asked now."""
        if name not in self._order:
            self._learn(trial, name)
        if self._synced_for != trial.number:
            self.sync(study, trial.number)
        node = self._root
        for earlier, value in trial.params.items():
            node.expand(earlier, trial.distributions[earlier])
            node = node.child(internal(trial.distributions[earlier], value))
        node.expand(name, distribution)
        return node

    def _learn(self, trial: FrozenTrial, name: str) -> None:
        """Records the order in which knobs are asked; trials that were added by hand may have another one."""
        before = [self._order.index(n) for n in trial.params if n in self._order]
        self._order.insert(max(before, default=-1) + 1, name)
        self._forget()

    def reserve(self, node: Node, value: Any) -> None:
        """Marks a value as proposed, so that no other trial proposes the same candidate meanwhile."""
        assert node.distribution is not None  # `descend` expanded it
        child = node.child(internal(node.distribution, value))
        if child.name is None:
            child.close()


def internal(distribution: BaseDistribution, value: Any) -> float:
    """Returns Optuna's internal number of a value, rounded so that equal values have equal numbers."""
    return round(float(distribution.to_internal_repr(value)), 12)


def grid_values(distribution: BaseDistribution) -> list[float] | None:
    """Returns all values of a knob as Optuna's numbers, ascending; None if they cannot be listed."""
    if isinstance(distribution, CategoricalDistribution):
        return [float(i) for i in range(len(distribution.choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)  # Optuna has no other
    if distribution.step is None:
        return [float(distribution.low)] if distribution.single() else None
    # 1e-9: (0.3 - 0.1) / 0.1 is 1.9999999999999998
    count = int((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
    if count > _MAX_VALUES:
        return None
    return [round(float(distribution.low + i * distribution.step), 12) for i in range(count)]
