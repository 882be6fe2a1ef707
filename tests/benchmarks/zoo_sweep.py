"""Many usual architectures with random weights: each is loaded, exported, quantized three ways, pruned to 0.7 of its MACs.

Run from the root of the repository, in an environment that also holds `timm`, `transformers` and `torchvision` (`own:*` needs
none of them)::

    python tests/benchmarks/zoo_sweep.py OUT
    python tests/benchmarks/zoo_sweep.py OUT --only 'timm:*vit*' --jobs 4

The networks are listed in `zoo/`. Each is run in a process of its own, with a time limit: a native crash is a row. Rows are
appended to `OUT/rows.jsonl`; networks that have a row are not run again. Prints a table, and what failed or was refused and why.

For each network: the exported file's outputs equal torch's for batches of 1, 2 and 5; each quantized file loads in plain onnxruntime and
gives finite outputs; the pruned network is exported, and its file gives the pruned network's outputs.
"""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from zoo.networks import network as build
from zoo.networks import networks

from spaces.errors import ParedownError

STEPS = ("load", "export", "default", "low_bits", "operators", "prune")
CANDIDATES: dict[str, dict[str, Any]] = {
    "default": {},
    "low_bits": {"weight_bits": 4, "scheme": "symmetric", "clipping": "mse", "bias_correction": True, "mixed_precision": True},
    "operators": {"format": "qoperator", "granularity": "tensor", "clipping": "percentile", "cross_layer_equalization": True},
}  # fmt: skip
N_IMAGES = 8
KEEP = 0.7
LONGEST_SENTENCE = 600


class WrongError(Exception):
    """A step went through, and its result is wrong."""


def run_steps(name: str, without: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the outcome of each step; the steps after one that did not go through are left out where they need it."""
    import torch

    from spaces.models.base import LoadContext
    from spaces.models.export import ExportStage
    from spaces.models.torch_checkpoint import TorchModel
    from spaces.pruning.prune import PruneStage
    from spaces.quantization.quantize import QuantizeStage
    from spaces.stages.cache import Cache
    from spaces.stages.stage import StageContext
    from spaces.stages.testing import noise_split

    torch.set_num_threads(1)
    shape = networks()[name]
    source = TorchModel("zoo.networks.network", None, shape, {"name": name}, trusted_modules=["zoo"])
    noise = noise_split(shape, N_IMAGES)
    context = StageContext(noise, Cache(), train=noise, accelerator="cpu")
    loaded = yield from step("load", lambda: source.load(LoadContext(None, Path())))
    if loaded is None:
        return
    export, quantize = ExportStage(), QuantizeStage()
    exported = yield from step(
        "export", lambda: export.apply(loaded, {}, context), lambda made: same(loaded, made)
    )
    wanted = CANDIDATES.keys() - set(without) if exported else ()
    for candidate in sorted(wanted):
        values = {"calibration_images": N_IMAGES, **CANDIDATES[candidate]}
        yield from step(
            candidate,
            lambda values=values: quantize.apply(exported, values, context),
            lambda made: finite(exported, made),
        )
    if "prune" in without:
        return
    prune = PruneStage(n_examples=N_IMAGES, threads=1)
    values = {**prune.defaults(), "criterion": "magnitude_l2", "keep": KEEP}

    def pruned() -> Any:
        prune.check(loaded, {knob: (value,) for knob, value in values.items()}, context)
        made = prune.apply(loaded, values, context)
        return made, export.apply(made, {}, context)

    yield from step("prune", pruned, lambda made: same(*made) | kept(made[0]))


def step(
    name: str, make: Callable[[], Any], check: Callable[[Any], dict[str, Any]] = lambda _: {}
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Makes and checks something; yields its row and returns what was made, None unless everything went well."""
    start, made, row = time.perf_counter(), None, {}
    with captured() as printed:
        try:
            made = make()
            row = {"state": "ok", **check(made)}
        except ParedownError as error:
            row = {"state": "refused", "reason": str(error)}
            if fault := fault_of(str(error)):
                row |= {"state": "failed", "reason": f"no sentence of ours ({fault}): {error}"}
        except Exception as error:
            kind = "wrong" if isinstance(error, WrongError) else "failed"
            row = {
                "state": kind,
                "reason": f"{type(error).__name__}: {error}"[:2000],
                "trace": traceback.format_exc()[-3000:],
            }
    row["seconds"] = round(time.perf_counter() - start, 2)
    if text := printed():
        row["printed"] = text[-2000:]
    yield name, row
    return made if row["state"] == "ok" else None


def fault_of(sentence: str) -> str | None:
    """Returns why a refusal's text is not one plain sentence; None if it is."""
    if "\x1b" in sentence:
        return "colours"
    if "\n" in sentence.strip():
        return "several lines"
    if len(sentence) > LONGEST_SENTENCE:
        return "too long"
    foreign = re.search(
        r"Traceback|torch\.onnx|torch\._|aten[.:]|0x[0-9a-f]{6}|\.py:\d|https?://|<class", sentence
    )
    return f"contains {foreign.group()!r}" if foreign else None


@contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Catches what reaches the process's standard output and error, native code's words too."""
    sys.stdout.flush(), sys.stderr.flush()
    read, write = os.pipe()
    os.set_blocking(read, False), os.set_blocking(write, False)
    before = [os.dup(1), os.dup(2)]
    os.dup2(write, 1), os.dup2(write, 2)
    text: list[bytes] = []
    try:
        yield lambda: b"".join(text).decode(errors="replace").strip()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for kept_fd, fd in zip(before, (1, 2), strict=True):
            os.dup2(kept_fd, fd), os.close(kept_fd)
        os.close(write)
        while part := os.read(read, 1 << 16):
            text.append(part)
        os.close(read)


def outputs(artifact: Any, x: np.ndarray) -> np.ndarray:
    """Returns a network's first output."""
    from spaces.models.onnx.opset import run
    from spaces.stages.torch_outputs import first_output

    if isinstance(artifact.model, bytes):
        return run(artifact.proto(), artifact.input, x)
    import torch

    with torch.no_grad():
        return first_output(artifact.model(torch.from_numpy(x))).numpy()


def inputs(artifact: Any, n: int) -> np.ndarray:
    """Returns random inputs."""
    return np.random.default_rng(n).standard_normal((n, *artifact.input.shape)).astype(np.float32)


def same(network: Any, exported: Any) -> dict[str, Any]:
    """Compares outputs for batches of 1, 2 and 5."""
    worst = 0.0
    for n in (1, 2, 5):
        x = inputs(network, n)
        expected, actual = outputs(network, x), outputs(exported, x)
        if expected.shape != actual.shape:
            raise WrongError(
                f"for a batch of {n} torch's outputs are {expected.shape}, and the file's {actual.shape}"
            )
        if not np.isfinite(expected).all():
            raise WrongError("the network itself gives numbers that are not finite")
        worst = max(worst, float(np.abs(expected - actual).max() / max(np.abs(expected).max(), 1e-12)))
    if worst > 1e-3:
        raise WrongError(f"the file's outputs differ by {worst:.2g} of the largest")
    return {"difference": worst}


def finite(exported: Any, quantized: Any) -> dict[str, Any]:
    """Runs a quantized file in plain onnxruntime; notes how far it is from float, in decibels."""
    import onnxruntime

    from evaluators.runtime import open_exact_session

    session = onnxruntime.InferenceSession(quantized.onnx_bytes, providers=["CPUExecutionProvider"])
    x = inputs(exported, 3)
    result = session.run(None, {exported.input.name: x})[0]
    expected = outputs(exported, x)
    if result.shape != expected.shape:
        raise WrongError(
            f"the float file's outputs are {expected.shape}, the quantized file's {result.shape}"
        )
    if not np.isfinite(result).all():
        raise WrongError("the quantized file gives numbers that are not finite")
    exact = open_exact_session(quantized, threads=1)  # kernels of x86 without VNNI saturate
    noise = float(np.square(expected - exact.run(None, {exported.input.name: x})[0]).mean())
    kinds = Counter(node.op_type for node in quantized.proto().graph.node)
    integer = (
        kinds["QuantizeLinear"]
        + kinds["DequantizeLinear"]
        + sum(n for k, n in kinds.items() if "QLinear" in k)
    )
    return {
        "sqnr_db": round(10 * np.log10(float(np.square(expected).mean()) / max(noise, 1e-30)), 1),
        "integer_nodes": integer,
    }


def kept(pruned: Any) -> dict[str, Any]:
    """Returns the share of MACs that the stage says are left."""
    notes = pruned.notes.get("prune", {})
    return (
        {"notes": {k: v for k, v in notes.items() if isinstance(v, int | float | str)}}
        if isinstance(notes, dict)
        else {}
    )


def warm_up(names: list[str]) -> None:
    """Imports what the networks need and exports one, so that each network's process, a fork of this one, starts at once."""
    import torch

    from spaces.models.export import ExportStage
    from spaces.pruning.prune import PruneStage  # noqa: F401
    from spaces.quantization.quantize import QuantizeStage  # noqa: F401
    from spaces.stages.artifact import InputSpec
    from spaces.stages.cache import Cache
    from spaces.stages.stage import StageContext
    from spaces.stages.torch_artifact import torch_artifact

    torch.set_num_threads(1)
    network = torch_artifact(torch.nn.Linear(2, 2), InputSpec((2,)))
    ExportStage().apply(network, {}, StageContext(None, Cache()))
    first = {name.partition(":")[0]: name for name in reversed(names)}
    for name in first.values():
        build(name)


def run_one(name: str, limit_s: float, without: Sequence[str]) -> dict[str, Any]:
    """Runs a network in a process of its own; returns its row."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows, words = Path(folder, "rows"), Path(folder, "words")
        rows.touch(), words.touch()
        pid = os.fork()
        if not pid:
            child(name, without, rows, words)
        status = wait(pid, start + limit_s)
        steps = dict(map(json.loads, rows.read_text().splitlines()))
        if status:
            late = status == -signal.SIGKILL and time.perf_counter() - start >= limit_s
            reason = (
                f"no end after {limit_s:g} s"
                if late
                else f"exit status {status}: {words.read_text()[-1500:].strip()}"
            )
            left = next((s for s in STEPS if s not in steps), STEPS[-1])
            steps[left] = {"state": "late" if late else "crashed", "reason": reason}
    return {"network": name, "seconds": round(time.perf_counter() - start, 1), "steps": steps}


def child(name: str, without: Sequence[str], rows: Path, words: Path) -> NoReturn:
    """Runs the steps in this process, writes a line for each, and ends it."""
    status = 1
    try:
        os.setsid()
        with rows.open("w") as file, words.open("w") as other:
            os.dup2(other.fileno(), 1), os.dup2(other.fileno(), 2)
            for key, row in run_steps(name, without):
                file.write(json.dumps([key, row], default=str) + "\n")
                file.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int, deadline: float) -> int:
    """Waits for a child, and kills its process group at the deadline; returns its exit status, negative for a signal."""
    while time.perf_counter() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the newest row of each network."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["network"]: row for row in map(json.loads, lines)}


def sweep(out: Path, names: list[str], given: argparse.Namespace) -> None:
    """Runs the networks that have no row, `given.jobs` beside each other."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "rows.jsonl"
    done = read_rows(path)
    names = [name for name in names if name not in done]
    if not names:
        return
    warm_up(names)
    workers = []
    for job in range(given.jobs):
        if not (worker := os.fork()):
            for name in names[job :: given.jobs]:
                row = run_one(name, given.limit, given.without)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(line_of(row), flush=True)
            os._exit(0)
        workers.append(worker)
    for worker in workers:
        os.waitpid(worker, 0)


def line_of(row: dict[str, Any]) -> str:
    """Returns a network's row of the table."""
    states = [row["steps"].get(s, {"state": "-"}) for s in STEPS]
    noise = [f"{s['sqnr_db']:.0f} dB" if "sqnr_db" in s else s["state"] for s in states]
    return f"{row['network']:45} {row['seconds']:6.0f} s  " + "  ".join(f"{cell:8}" for cell in noise)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the table: a line for each network, totals, then each reason with its networks."""
    lines = [
        f"{'network':45} {'':8}  " + "  ".join(f"{s:8}" for s in STEPS),
        *(line_of(row) for row in rows),
        "",
        "totals",
    ]
    for s in STEPS:
        counts = Counter(row["steps"][s]["state"] for row in rows if s in row["steps"])
        lines.append(f"  {s:10} " + ", ".join(f"{n} {state}" for state, n in counts.most_common()))
    n_quiet = sum("printed" not in found for row in rows for found in row["steps"].values())
    lines.append(f"  steps that printed nothing: {n_quiet} of {sum(len(row['steps']) for row in rows)}")
    reasons = [
        f"  {row['network']} {s} {found['state']}: {' '.join(found['reason'].split())[:400]}"
        for row in rows
        for s, found in row["steps"].items()
        if found["state"] != "ok"
    ]
    return "\n".join([*lines, "", "not ok", *(reasons or ["  nothing"])])


def main() -> int:
    """Runs what the command line asks for; returns 1 if anything but load, export and quantize's refusals went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of rows.jsonl")
    parser.add_argument(
        "--only", nargs="*", default=["*"], metavar="PATTERN", help="names of networks, e.g. 'own:*'"
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], choices=STEPS[2:], help="steps to leave out")
    parser.add_argument(
        "--table", action="store_true", help="run nothing, print the table of the rows that there are"
    )
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    given = parser.parse_args()
    names = list(
        dict.fromkeys(name for pattern in given.only for name in networks() if fnmatch(name, pattern))
    )
    if not given.table:
        sweep(given.out, names, given)
    found = read_rows(given.out / "rows.jsonl")
    rows = [found[name] for name in names if name in found]
    print(table(rows))
    return any(s["state"] not in ("ok", "refused") for row in rows for s in row["steps"].values())


if __name__ == "__main__":
    sys.exit(main())
