"""`paredown-profile`: measures this machine's onnxruntime, and writes a device profile that predicts other networks."""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from evaluators.cost.latency.measured import pinned
from evaluators.devices.device import DType
from evaluators.profile.forms import quantized, random_form
from evaluators.profile.machine_load import Anchor
from evaluators.profile.measure import Effort, Sample, measured, open_anchor
from evaluators.profile.networks import random_network
from spaces.errors import ConfigError, ParedownError, StageError
from spaces.stages.artifact import Artifact

OK, USAGE, INTERRUPTED = 0, 2, 130
DTYPES: tuple[DType, ...] = ("float32", "int8")
_INT8_SHARE = 0.55
_FITTING_SHARE = 0.12  # of the time; the rest is measuring
LEAST_NETWORKS = 20


def main() -> None:
    """Runs `paredown-profile` and exits with its status."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit status.

    Returns:
        0: both files are written; 2: an option is wrong or a file cannot be written; 130: Ctrl-C, nothing is written.
    """
    terminal = (
        None if sys.stdout.isatty() else False
    )  # FORCE_COLOR would draw a progress bar into a file, line by line
    console = Console(highlight=False, force_terminal=terminal)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        _profile(_options(arguments), console)
    except KeyboardInterrupt:
        errors.print("paredown-profile: interrupted; nothing was written")
        return INTERRUPTED
    except (ParedownError, OSError) as error:
        errors.print(f"paredown-profile: {error}", markup=False)
        return USAGE
    return OK


def networks(
    random: np.random.Generator, dtypes: Sequence[str], most: int | None = None
) -> Iterator[Artifact]:
    """Yields random networks whose weights are stored in the given dtypes.

    Args:
        random: Draws the networks.
        dtypes: `float32`, `int8` (quantized), or both, in random order.
        most: Maximum number of networks; None yields networks without end.
    """
    n = 0
    while most is None or n < most:
        artifact = random_network(random)
        if "float32" not in dtypes or ("int8" in dtypes and random.random() < _INT8_SHARE):
            try:
                artifact = quantized(artifact, random_form(random), random)
            except StageError:  # the network has no layer to quantize
                continue
        n += 1
        yield artifact


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises ConfigError, where argparse prints the usage and exits, so that every mistake is reported as one line."""
        raise ConfigError(f"{message} (paredown-profile --help lists the options)")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="paredown-profile", description=__doc__)
    add = parser.add_argument
    add("--name", required=True, help="name of the device, as in device=NAME")
    add(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder to write to, for paredown --config-dir",
    )
    add("--minutes", type=float, default=5.0, help="total time in minutes (default: 5)")
    add("--threads", type=int, default=1, help="onnxruntime's threads within an operator (default: 1)")
    add("--dtypes", default=",".join(DTYPES), help=f"of {','.join(DTYPES)} (default: all)")
    add("--seed", type=int, default=0, help="seed of the random networks (default: 0)")
    add(
        "--networks",
        type=int,
        default=None,
        help="maximum number of networks to time (default: limited by the time only)",
    )
    options = parser.parse_args(arguments)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", options.name):
        raise ConfigError(f"--name must be letters, digits and _, the first a letter, not {options.name!r}")
    if not 0.02 <= options.minutes <= 600:
        raise ConfigError(f"--minutes must lie between 0.02 and 600, not {options.minutes:g}")
    if not 1 <= options.threads <= 1024:
        raise ConfigError(f"--threads must lie between 1 and 1024, not {options.threads}")
    if options.seed < 0:
        raise ConfigError(f"--seed must not be negative, but is {options.seed}")
    if options.networks is not None and options.networks < LEAST_NETWORKS:
        raise ConfigError(f"--networks must be at least {LEAST_NETWORKS}, not {options.networks}")
    options.dtypes = tuple(options.dtypes.split(","))
    wrong = [dtype for dtype in options.dtypes if dtype not in DTYPES]
    if wrong:
        raise ConfigError(f"--dtypes must be of {', '.join(DTYPES)}, separated by commas, not {wrong[0]!r}")
    folder = options.out.expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out must be a folder, but {folder} is a file")


def _profile(options: argparse.Namespace, console: Console) -> None:
    from evaluators.profile.report import summary
    from evaluators.profile.result import profile_of

    started = time.monotonic()
    seconds = 60 * options.minutes
    with pinned(options.threads) as cores:
        anchor = open_anchor(options.threads)
        samples = _measure(options, anchor, seconds * (1 - _FITTING_SHARE), console)
    if len(samples) < LEAST_NETWORKS:
        raise ConfigError(
            f"--minutes {options.minutes:g} is enough for {len(samples)} networks only, but at least {LEAST_NETWORKS} are required"
        )
    with console.status("fitting"):
        profile = profile_of(options.name, samples, anchor, options.threads, options.seed)
    arguments = f" --threads {options.threads}" if options.threads > 1 else ""
    minutes = (time.monotonic() - started) / 60
    paths = profile.write(options.out, arguments, time.strftime("%Y-%m-%d"), minutes)
    console.print(summary(profile, cores))
    console.print(
        f"{paths[0]}\n{paths[1]}\nUse it: paredown --config-dir {options.out} device={options.name}"
    )


def _measure(options: argparse.Namespace, anchor: Anchor, seconds: float, console: Console) -> list[Sample]:
    drawn = networks(np.random.default_rng(options.seed), options.dtypes, options.networks)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    samples: list[Sample] = []
    started = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("timing random networks", total=seconds)
        for sample in measured(drawn, anchor, options.threads, seconds, Effort()):
            samples.append(sample)
            description = f"{len(samples)} networks timed"
            progress.update(task, completed=time.monotonic() - started, description=description)
    return samples


if __name__ == "__main__":
    main()
