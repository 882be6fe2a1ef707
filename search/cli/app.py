"""The command line: composes the config, runs the study, and reports its result as text and exit status."""

import gc
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from search.planning.config.command import command_text, options_of, overrides_of, value_text
from search.planning.config.device_files import folders_of
from search.planning.config.hydra_errors import hydra_text, replacing
from search.planning.config.schema import Config, read_config, register_schema
from search.planning.config.shipped import shipped
from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError, ParedownError, StudyError

OK, USAGE, INFEASIBLE, INTERRUPTED = 0, 2, 3, 130
_PART_LENGTH = 60  # characters per override in a folder's name, which file systems limit to 255 bytes


def main() -> None:
    """Runs `paredown` and exits with its status."""
    sys.path.append(
        str(Path.cwd())
    )  # `model.cls` may name a module in the current folder; appended last, so that it shadows no other
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Runs the command line and returns its exit status.

    Returns:
        0: a candidate met the constraints; 2: the config is wrong; 3: no candidate was feasible; 130: Ctrl-C.
    """
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    statuses: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(shipped()), config_name="config")
    def job(composed: DictConfig) -> None:
        statuses.append(_guarded(composed, errors))

    register_schema()
    sys.argv[1:] = arguments
    try:
        with _hydra_raises_errors():
            job()
    except (HydraException, OmegaConfBaseException) as error:
        if (better := replacing(arguments, error)) is not None:
            return run_command(better)
        return _print_error(errors, hydra_text(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(statuses, default=OK)


def run_config(config: Config, console: Console) -> int:
    """Runs one study and returns the exit status.

    Raises:
        ParedownError: The config or an input file is wrong.
    """
    from search.planning.session import prepare
    from search.study.progress import LiveProgress
    from search.study.study import run_study

    with console.status("starting") as status, _uncollected():
        session = prepare(config, lambda text: status.update(text))
    if config.data["dry_run"]:
        console.print(session.description())
        return OK
    outcome = run_study(session.plan, LiveProgress(console))
    console.print(session.closing(outcome, console.width))
    if outcome.interrupted:
        return INTERRUPTED
    return OK if any(t.state == "complete" for t in outcome.results.trials) else INFEASIBLE


@contextmanager
def _uncollected() -> Iterator[None]:
    """Suspends garbage collection: libraries that are imported make millions of objects, which stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _guarded(composed: DictConfig, errors: Console) -> int:
    """Runs one job of a sweep, prints its errors so that other jobs still run, and returns its status."""
    logging.getLogger("search").setLevel(logging.WARNING)
    try:
        return run_config(_config_of(composed), _console())
    except (ConfigError, InputError, StudyError) as error:
        return _print_error(errors, str(error))
    except OmegaConfBaseException as error:
        return _print_error(errors, hydra_text(error))
    except ParedownError as error:
        return _print_error(errors, f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        errors.print("interrupted before the study began")
        return INTERRUPTED


def _console() -> Console:
    console = Console(highlight=False)
    # a file or pipe has no width; the default of 80 columns would wrap the final table
    return console if console.is_terminal else Console(highlight=False, width=140)


def _config_of(composed: DictConfig) -> Config:
    job = HydraConfig.get()
    choices: Mapping[str, Any] = {str(group): name for group, name in job.runtime.choices.items()}
    in_sweep = job.mode == RunMode.MULTIRUN
    suffix = _suffix(job.job.override_dirname) if in_sweep else ""
    options, overrides = options_of(job), overrides_of(job)
    folders = folders_of(job.runtime.config_sources)
    config = read_config(composed, choices, command_text(overrides, options), suffix, folders)
    if not in_sweep:
        return config
    # the command that reproduces this study alone has no sweep suffix: it gets name and folder explicitly
    named = [f"study.{key}={value_text(config.data['study'][key])}" for key in ("name", "dir")]
    return replace(config, command=command_text([*overrides, *named], options))


def _suffix(overrides: str) -> str:
    """Returns the suffix of a study's folder name in a sweep: its overrides, each cut to `_PART_LENGTH`."""
    parts = overrides.replace("/", "_").replace(" ", "").split(",")
    short = (p if len(p) <= _PART_LENGTH else f"{p[:_PART_LENGTH]}-{digest_of(p)}" for p in parts)
    return ",".join(short)


def _print_error(errors: Console, text: str) -> int:
    errors.print(f"paredown: {text}", markup=False)
    return USAGE


@contextmanager
def _hydra_raises_errors() -> Iterator[None]:
    """Makes Hydra raise errors within the context; by default it prints them and exits with status 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
