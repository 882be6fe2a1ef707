"""How many small faults in the core the tests notice: a mutation run, too slow for CI.

Run from the root of the repository::

    pip install cosmic-ray
    python tests/benchmarks/mutation.py [--only search.record.hypervolume ...] [--per-place 1] [--seed 0] [--most 400]

A mutant is one of the core's modules (`CORE`) with one change: an operator of cosmic-ray (another arithmetic operator or comparison, a
number that is one off, `and` for `or`, a loop that does not run, ...), or one of two of our own (a function for its opposite, e.g. `any`
for `all`; a statement that is left out). It is killed if one of the module's own tests fails, or takes four times as long as usual. At
each place that can be changed `--per-place` changes are drawn; changes of annotations alone, which nothing runs, are not counted.

Only the operators are cosmic-ray's. Its own runner writes each mutant over the file, which an interrupted run leaves behind, and starts an
interpreter for each, which takes longer to import torch and onnxruntime than the tests take. Here a fork of a process that has imported
these already runs each mutant from memory.

Prints each mutant that survived, and for each module what was killed. Exits with 1 if less than `--least` percent were killed over all.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType
from typing import ClassVar

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from hypothesis import Phase, settings
from parso.python.tree import Name, PythonNode

ROOT = Path(__file__).parents[2]

# The core, and what tests each of its modules: arguments of pytest. Files that move are renamed here and nowhere else.
CORE: dict[str, tuple[str, ...]] = {
    "search.record.hypervolume": ("tests/search/record/test_hypervolume.py",),
    "search.record.front": ("tests/search/record/test_front.py",),
    "search.study.verdict": ("tests/search/study/test_verdict.py",),
    "search.study.ledger": ("tests/search/study/test_ledger.py",),
    "spaces.pruning.budgets.budget": ("tests/spaces/pruning/budgets/test_budget.py",),
    "evaluators.task.statistics.early_stopping": ("tests/evaluators/task/statistics/test_early_stopping.py",),
    "spaces.quantization.schemes.scheme": ("tests/spaces/quantization/schemes/test_scheme.py",),
    "spaces.quantization.schemes.integers": ("tests/spaces/quantization/schemes/test_integers.py",),
}

# Mutants that no test can tell from the original: (module, line, the line as changed): why.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "search.record.front",
        'signed = [values.get(o.column, np.nan) * (-1.0 if o.direction == "maximize" else 1.0) for o in objectives]',
        'signed = [values.get(o.column, np.nan) * (-1.0 if o.direction <= "maximize" else 1.0) for o in objectives]',
    ): "the other direction comes after it in the alphabet",
    (
        "search.record.front",
        'if t.state == "complete" and (loss := losses(t, objectives)) is not None',
        'if t.state <= "complete" and (loss := losses(t, objectives)) is not None',
    ): "no state comes before it in the alphabet",
    (
        "search.record.front",
        "return tuple(number for (_, number), on_front in zip(feasible, kept, strict=True) if on_front)",
        "return tuple(number for (_, number), on_front in zip(feasible, kept, strict=False) if on_front)",
    ): "one was made from the other",
    (
        "search.record.front",
        "best = min(records, key=lambda r: _main_loss(r, objectives[0]))",
        "best = min(records, key=lambda r: _main_loss(r, objectives[ -1]))",
    ): "there is one objective",
    (
        "search.record.front",
        'return -value if main.direction == "maximize" else value',
        'return -value if main.direction <= "maximize" else value',
    ): "the other direction comes after it in the alphabet",
    (
        "search.record.hypervolume",
        "if points.shape[1] == 1:",
        "if points.shape[1] <= 1:",
    ): "there is an axis",
    (
        "search.record.hypervolume",
        "return float(reference[0] - points.min())",
        "return float(reference[ -1] - points.min())",
    ): "there is one axis",
    (
        "search.study.verdict",
        'if record.state != "complete":',
        'if record.state > "complete":',
    ): "no state comes before it in the alphabet",
    (
        "spaces.quantization.schemes.integers",
        'low = 0 if stored == "unsigned" else -(2 ** (grid.bits - 1))',
        'low = 0 if stored >= "unsigned" else -(2 ** (grid.bits - 1))',
    ): "`signed` comes before it in the alphabet",
    (
        "spaces.quantization.schemes.integers",
        'sign = "u" if stored == "unsigned" else "i"',
        'sign = "u" if stored >= "unsigned" else "i"',
    ): "`signed` comes before it in the alphabet",
    (
        "spaces.pruning.budgets.budget",
        "step = self.round_to // gcd(self.round_to, k)",
        "step = self.round_to / gcd(self.round_to, k)",
    ): "it is a divisor, and the numbers are made integers",
    (
        "spaces.pruning.budgets.budget",
        "ratio, allowed = ratios.get(group.name, 0.0), limits.allowed(group)",
        "ratio, allowed = ratios.get(group.name, -1.0), limits.allowed(group)",
    ): "the nearest to more than all is all",
    (
        "spaces.pruning.budgets.budget",
        "low, high = 0, len(ranking.least_first)",
        "low, high = 1, len(ranking.least_first)",
    ): "if nothing had to go, the one channel comes back",
    (
        "spaces.pruning.budgets.budget",
        "if len(allowed) > 1 and floor(wanted + 0.5) < 1:",
        "if len(allowed) != 1 and floor(wanted + 0.5) < 1:",
    ): "all channels are always allowed",
    (
        "spaces.pruning.budgets.budget",
        "return np.array([ns[at] for ns, at in zip(allowed, indices, strict=True)], np.int64)",
        "return np.array([ns[at] for ns, at in zip(allowed, indices, strict=False)], np.int64)",
    ): "one was made from the other",
    (
        "spaces.pruning.budgets.budget",
        "indices = [min(np.searchsorted(ns, n), len(ns) - 1) for ns, n in zip(allowed, left, strict=True)]",
        "indices = [min(np.searchsorted(ns, n), len(ns) - 1) for ns, n in zip(allowed, left, strict=False)]",
    ): "`allowed` has one for each group already",
    (
        "spaces.quantization.schemes.scheme",
        "shape[self.axis] = -1",
        "shape[self.axis] = ~1",
    ): "NumPy takes any negative number for the length that follows",
    (
        "spaces.quantization.schemes.scheme",
        "least_scale: ArrayLike = 0.0,",
        "least_scale: ArrayLike = -1.0,",
    ): "every scale is above 0",
    (
        "search.study.ledger",
        "return len(self._study.get_trials(deepcopy=False))",
        "return len(self._study.get_trials(deepcopy=True))",
    ): "a copy only takes longer",
    (
        "search.study.ledger",
        "reported = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values",
        "reported = self._study.get_trials(deepcopy=True)[trial.number].intermediate_values",
    ): "a copy only takes longer",
    (
        "search.study.ledger",
        "trials = self._study.get_trials(deepcopy=False)",
        "trials = self._study.get_trials(deepcopy=True)",
    ): "a copy only takes longer",
    (
        "search.study.ledger",
        "if len(values) > 1:",
        "if len(values) != 1:",
    ): "there is an objective",
    (
        "search.study.ledger",
        "elif values[0] is not None:",
        "elif values[ -1] is not None:",
    ): "there is one objective",
    (
        "search.study.ledger",
        "if frozen.state == TrialState.RUNNING:",
        "if frozen.state <= TrialState.RUNNING:",
    ): "no state comes before it",
    (
        "spaces.quantization.schemes.scheme",
        "return np.ldexp(1.0, exponent - (mantissa == 0.5)), zero",
        "return np.ldexp(1.0, exponent - (mantissa <= 0.5)), zero",
    ): "no mantissa is less",
    (
        "evaluators.task.statistics.early_stopping",
        "self._largest_log_capital = 0.0  # after any example",
        "self._largest_log_capital = -1.0  # after any example",
    ): "a capital below the first one stops nothing",
    (
        "evaluators.task.statistics.early_stopping",
        "bets = np.where(required < width, bets, 0.0)  # else the result is certain",
        "bets = np.where(required <= width, bets, 0.0)  # else the result is certain",
    ): "where only the best scores would do, these win nothing, and any other makes it certain",
}

IMPORTED_ONCE = (
    "anyio.pytest_plugin", "hydra", "hypothesis", "numpy", "omegaconf", "onnx", "onnxruntime", "onnxruntime.quantization", "optuna",
    "pandas", "rich.console", "scipy.stats", "torch", "xdist.plugin",
)  # fmt: skip
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}
ORDER = {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"}
OPPOSITES = {"all": "any", "min": "max", "minimum": "maximum", "argmin": "argmax", "floor": "ceil"}


class OppositeFunction(Operator):
    """Calls `any` for `all`, `max` for `min`, and so on, and the other way round."""

    names: ClassVar = {**OPPOSITES, **{b: a for a, b in OPPOSITES.items()}}

    def mutation_positions(self, node):
        """Yields where a node that is such a name is."""
        if (
            isinstance(node, Name)
            and node.value in self.names
            and node.parent.type in ("trailer", "atom_expr")
        ):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        """Returns the other name."""
        node.value = self.names[node.value]
        return node

    @classmethod
    def examples(cls):
        """Returns nothing: cosmic-ray's own tests would run them."""
        return ()


class DropStatement(Operator):
    """Leaves out a call whose value is not used, an assignment to an attribute or item, or an augmented one."""

    def mutation_positions(self, node):
        """Yields where such a statement is."""
        if isinstance(node, PythonNode) and node.type == "simple_stmt" and self._droppable(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        """Returns `pass`, indented as the statement."""
        prefix = node.get_first_leaf().prefix
        statement = get_ast("pass\n").children[0]
        statement.get_first_leaf().prefix = prefix
        return statement

    @staticmethod
    def _droppable(statement):
        if statement.type != "expr_stmt":
            return statement.type == "atom_expr"
        target, how = statement.children[:2]
        return target.type == "atom_expr" or getattr(how, "value", "=") not in ("=", ":")

    @classmethod
    def examples(cls):
        """Returns nothing: cosmic-ray's own tests would run them."""
        return ()


OWN = {"OppositeFunction": OppositeFunction, "DropStatement": DropStatement}


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: Its dotted name.
        operator: What made the change.
        source: All of the module's text, with the change.
        line: The first line that differs, counted from 1.
        before: That line without the change.
        after: That line with it.
    """

    module: str
    operator: str
    source: str
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} ({self.operator})\n    - {self.before}\n    + {self.after}"


def path_of(module: str) -> Path:
    """Returns a module's file."""
    return ROOT / f"{module.replace('.', '/')}.py"


def families() -> dict[str, list[str]]:
    """Returns the operators that are used, by what they change: those of one family change the same places."""
    found: dict[str, list[str]] = {name: [name] for name in OWN}
    for name in operator_names():
        kind, *pair = name.removeprefix("core/").split("_")
        if kind in ("VariableReplacer", "VariableInserter", "ExceptionReplacer"):
            continue  # these need a name as an argument
        sensible = [{"Is", "IsNot"}, ARITHMETIC, ORDER]
        if (
            len(pair) == 2
            and kind != "ReplaceUnaryOperator"
            and not any(set(pair) <= some for some in sensible)
        ):
            continue  # e.g. a shift of a float, which fails at once
        found.setdefault("_".join([kind, *pair[:1]]), []).append(name)
    return found


def mutants(module: str, per_place: int, rng: random.Random) -> list[Mutant]:
    """Returns the mutants of a module: `per_place` at each place that can be changed, all of them different."""
    original = path_of(module).read_text()
    known, found = {None, _meaning(original)}, []  # None: no Python any more
    for names in families().values():
        for options in _places(original, names).values():
            rng.shuffle(options)
            n_drawn = 0
            for name, occurrence in options:
                source = MutationVisitor.mutate_code(original, _operator(name), occurrence)
                meaning = _meaning(source)
                if meaning not in known and n_drawn < per_place:
                    known.add(meaning)
                    found.append(_mutant(module, name, original, source))
                    n_drawn += 1
    return sorted(found, key=lambda mutant: mutant.line)


def _operator(name: str) -> Operator:
    return OWN[name]() if name in OWN else get_operator(name)()


def _places(source: str, names: Sequence[str]) -> dict[object, list[tuple[str, int]]]:
    """Returns what operators can do at each place: the operator, and which of its places in the module that is."""
    found: dict[object, list[tuple[str, int]]] = {}
    for name in names:
        operator = _operator(name)
        places = [place for node in ast_nodes(get_ast(source)) for place in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            found.setdefault(place, []).append((name, occurrence))
    return found


def _mutant(module: str, operator: str, original: str, source: str) -> Mutant:
    before, after = original.splitlines(), source.splitlines()
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    _, start, stop, new_start, new_stop = next(change for change in changes if change[0] != "equal")
    old = " ".join(line.strip() for line in before[start:stop])
    new = " ".join(line.strip() for line in after[new_start:new_stop])
    return Mutant(module, operator.removeprefix("core/"), source, start + 1, old, new)


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(0)
        return self.generic_visit(node)


def _meaning(source: str) -> str | None:
    """Returns a text that is equal for sources that differ in spaces and annotations only; None if it is no Python."""
    try:
        return ast.dump(_WithoutAnnotations().visit(ast.parse(source)))
    except SyntaxError:
        return None


class _Importer(PathFinder):
    """Imports one module from a text instead of its file."""

    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:  # type: ignore[override]
        """Finds that module, as any other is found, and gives it the text's code."""
        if fullname != self._module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)

        def get_code(name: str) -> CodeType:
            return compile(self._source, spec.origin, "exec")

        spec.loader.get_code = get_code
        return spec


def _run_tests(mutant: Mutant) -> int:
    """Runs the tests of the mutant's module in this process, which is to end then; returns their exit status."""
    sys.meta_path.insert(0, _Importer(mutant.module, mutant.source))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--timeout=0"]
    # to rewrite assertions takes longer than most tests
    options += ["--assert=plain", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    # an example that fails is enough: it need not be made small
    settings.register_profile(
        "mutation", deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
    )
    options += ["--hypothesis-profile=mutation"]
    return int(pytest.main([*options, *CORE[mutant.module]]))


def passes(mutant: Mutant, limit_s: float) -> bool:
    """Returns whether the tests pass for a mutant, in a fork of this process and within a time limit."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            status = _run_tests(mutant)
        finally:
            os._exit(status)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run(module: str, drawn: Sequence[Mutant]) -> Iterator[Mutant]:
    """Yields the mutants of a module that survive its tests and are not listed as equivalent.

    Raises:
        RuntimeError: The tests fail without any change.
    """
    began = time.monotonic()
    source = path_of(module).read_text()
    if not passes(Mutant(module, "none", source, 0, "", ""), 600.0):
        raise RuntimeError(f"the tests of {module} fail as they are: {' '.join(CORE[module])}")
    limit_s = 10.0 + 4 * (time.monotonic() - began)
    yield from (mutant for mutant in drawn if passes(mutant, limit_s))


def _is_equivalent(mutant: Mutant) -> bool:
    return (mutant.module, mutant.before, mutant.after) in EQUIVALENT


def main() -> int:
    """Runs and prints; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(CORE), default=list(CORE), metavar="MODULE")
    parser.add_argument("--per-place", type=int, default=1, help="changes at each place, drawn (default 1)")
    parser.add_argument("--most", type=int, default=1000, help="mutants of a module, drawn (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--least", type=float, default=85.0, help="per cent to be killed (default 85)")
    args = parser.parse_args()
    os.chdir(ROOT)
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    rows = [(module, *_count(module, args)) for module in args.only]
    n_killed, n_all = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print(f"\n{'module':32} killed / all, equivalent ones left out")
    for module, killed, total in [*rows, ("together", n_killed, n_all)]:
        print(f"{module:32} {killed:4} / {total:4}  {100 * killed / max(total, 1):5.1f} %")
    return 0 if 100 * n_killed >= args.least * n_all else 1


def _count(module: str, args: argparse.Namespace) -> tuple[int, int]:
    """Runs the mutants of one module; returns how many were killed, of how many."""
    rng = random.Random(args.seed)
    drawn = [m for m in mutants(module, args.per_place, rng) if not _is_equivalent(m)]
    drawn = rng.sample(drawn, min(args.most, len(drawn)))
    survivors = 0
    for mutant in run(module, drawn):  # those that survived
        survivors += 1
        print(f"survived: {mutant}", flush=True)
    print(f"{module}: {len(drawn) - survivors} of {len(drawn)} killed", flush=True)
    return len(drawn) - survivors, len(drawn)


if __name__ == "__main__":
    sys.exit(main())
