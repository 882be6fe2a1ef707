"""The command line: composes the config, runs the study, and reports its result as text and exit status."""

import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from search.cli import BEGAN
from search.cli.verbs.dispatch import run_verb, verb_of
from search.planning.config.command import command_text, options_of, overrides_of, value_text
from search.planning.config.device_files import folders_of
from search.planning.config.hydra_errors import hydra_text, replacing
from search.planning.config.schema import Config, read_config, register_schema
from search.planning.config.shipped import shipped
from search.planning.config.sources import arguments_of, checked_files
from search.planning.config.trusted import trusted_by_hand
from search.record.environment import environment_variable
from search.record.redact import redact_text
from search.report.console import PlainConsole
from search.study.interrupts import Interrupts
from spaces.digest import digest_of
from spaces.errors import ConfigError, InputError, ParedownError, StudyError
from spaces.extras import PACKAGES, missing

OK, USAGE, INFEASIBLE = 0, 2, 3
_SIGNALLED = 128  # plus the signal's number, as a shell reports it
_BROKEN_PIPE = 141  # 128 and SIGPIPE's number, which Windows does not have
FIRST_STUDY = ("experiment=tones_board",)  # what the README begins with
_PART_LENGTH = 60  # characters per override in a folder's name, which file systems limit to 255 bytes


def main() -> None:
    """Runs `paredown` and exits with its status."""
    sys.excepthook = _print_traceback
    if logging.lastResort is not None:  # what prints warnings
        logging.lastResort.addFilter(_without_secrets)
    try:
        status = run_command(sys.argv[1:], BEGAN)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has had enough, e.g. `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _BROKEN_PIPE
    if status > _SIGNALLED:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # all is written: another Ctrl-C ends the process at once
    sys.exit(status)


def run_command(arguments: list[str], began: float | None = None) -> int:
    """Runs the command line and returns its exit status.

    Args:
        arguments: The command line, without the program's name; without any, it is that of `FIRST_STUDY`.
        began: `time.monotonic()` when the command was started, for the account of its time; None is now.

    Returns:
        0: a candidate met the constraints; 2: the config is wrong; 3: no candidate was feasible; 130: Ctrl-C; 143:
        SIGTERM; 129: SIGHUP.
    """
    errors = PlainConsole(stderr=True, soft_wrap=not sys.stderr.isatty())  # a terminal gets whole words
    if not arguments:
        _console().print(
            f"No arguments: running {' '.join(FIRST_STUDY)}, about a minute; see also paredown init, paredown --help"
        )
        return run_command(list(FIRST_STUDY), began)
    if (verb := verb_of(arguments)) is not None:
        return _verb_status(verb, arguments[1:], errors, began)
    try:
        trusted = trusted_by_hand(arguments_of(arguments).overrides)
    except ConfigError as error:
        return _print_error(errors, str(error))
    _find_modules_here(trusted)
    statuses: list[int] = []
    begun: list[Config] = []
    interrupts = Interrupts()

    @hydra.main(version_base="1.3", config_path=str(shipped()), config_name="config")
    def job(composed: DictConfig) -> None:
        first = began if not statuses else None
        statuses.append(_guarded(composed, errors, interrupts, trusted, first, begun))
        if statuses[-1] > _SIGNALLED:
            raise KeyboardInterrupt  # the studies of a sweep that remain are not begun

    register_schema()
    sys.argv[1:] = arguments
    try:
        # by default Hydra prints errors and exits with status 1; so it raises them
        with (
            interrupts.noted(),
            environment_variable("HYDRA_FULL_ERROR", "1"),
            checked_files(trusted),
        ):
            job()
        if len(begun) > 1:
            _print_sweep(begun, errors)
    except ParedownError as error:
        return _print_error(errors, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        if (better := replacing(arguments, error)) is not None:
            return run_command(better, began)
        return _print_error(errors, hydra_text(error, trusted))
    except KeyboardInterrupt:
        signalled = [status for status in statuses if status > _SIGNALLED]
        return signalled[0] if signalled else _signalled(interrupts.signal)
    return max(statuses, default=OK)


def _verb_status(verb: str, arguments: list[str], errors: Console, began: float | None) -> int:
    try:
        _find_modules_here(trusted_by_hand([word for word in arguments if "=" in word]))
        result = run_verb(verb, arguments)
    except ParedownError as error:
        return _print_error(errors, str(error))
    except SystemExit as stop:  # argparse has printed the help
        return int(stop.code or OK)
    except KeyboardInterrupt:
        return _signalled(None)
    return run_command(result, began) if isinstance(result, list) else result


def _find_modules_here(trusted: Sequence[str]) -> None:
    """Lets modules be imported from the current folder if the command line trusts one that is there.

    Else a folder from elsewhere could bring modules of its own by entering it. They come last, so that they shadow no others.
    """
    here = Path.cwd()
    tops = {name.partition(".")[0] for name in trusted}
    if (
        any((here / top).is_dir() or (here / f"{top}.py").is_file() for top in tops)
        and str(here) not in sys.path
    ):
        sys.path.append(str(here))


def run_config(config: Config, console: Console, began: float | None = None) -> int:
    """Runs one study and returns the exit status.

    Args:
        config: The config.
        console: Where progress and results are printed.
        began: `time.monotonic()` when its start began; None is now.

    Raises:
        ParedownError: The config or an input file is wrong.
    """
    from search.planning.session import prepare
    from search.study.progress import LiveProgress
    from search.study.study import run_study

    with console.status("starting") as status, _uncollected():

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal and text.startswith("waiting"):
                console.print(text, markup=False)

        session = prepare(config, say, began)
    if config.data["dry_run"]:
        console.print(session.description())
        return OK
    outcome = run_study(session.plan, LiveProgress(console))
    console.print(session.closing(outcome, console.width), crop=False)  # addresses are whole, to be copied
    if outcome.interrupted or outcome.signal is not None:
        return _signalled(outcome.signal)
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


def _signalled(number: int | None) -> int:
    """Returns the exit status after a signal; None is Ctrl-C."""
    return _SIGNALLED + (signal.SIGINT if number is None else number)


def _guarded(
    composed: DictConfig,
    errors: Console,
    interrupts: Interrupts,
    trusted: Sequence[str],
    began: float | None,
    begun: list[Config],
) -> int:
    """Runs one job of a sweep, prints its errors so that other jobs still run, and returns its status.

    Its config is added to those that were begun.
    """
    logging.getLogger("search").setLevel(logging.WARNING)
    try:
        begun.append(config := _config_of(composed, trusted))
        return run_config(config, _console(), began)
    except (ConfigError, InputError, StudyError) as error:
        return _print_error(errors, str(error))
    except OmegaConfBaseException as error:
        return _print_error(errors, hydra_text(error, trusted))
    except ParedownError as error:
        return _print_error(errors, f"{type(error).__name__}: {error}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in PACKAGES:
            raise
        return _print_error(errors, missing(package, "this config"))
    except KeyboardInterrupt:
        errors.print(f"{interrupts.text} before the study began")
        return _signalled(interrupts.signal)


def _print_sweep(begun: Sequence[Config], errors: Console) -> None:
    """Prints the table of a sweep's studies and writes its page beside their folders, if at least two have ended."""
    from search.cli.sweep import read_studies, write_sweep

    folders = [Path(folder) for config in begun if (folder := config.data["study"]["dir"])]
    ended = [folder for folder in folders if (folder / "summary.json").is_file()]
    if len(ended) < 2 or any(config.data["dry_run"] for config in begun):
        return
    name = _shared_name(begun[0].sweep, [folder.name for folder in ended])
    path = Path(os.path.commonpath(ended)) / f"{name}-sweep.csv"
    try:
        write_sweep(read_studies(ended), path, path.with_suffix(".html"), name)
    except ParedownError as error:
        _print_error(errors, str(error))


def _shared_name(sweep: str, folders: Sequence[str]) -> str:
    """Returns a sweep's name with the overrides that the names of all its folders have."""
    parts = [folder.removeprefix(f"{sweep}-").split(",") for folder in folders]
    shared = ",".join(part for part in parts[0] if all(part in other for other in parts))
    return f"{sweep}-{_cut(shared)}" if shared else sweep


def _console() -> Console:
    console = PlainConsole()
    # a file or pipe has no width; the default of 80 columns would wrap the final table
    return console if console.is_terminal else PlainConsole(width=140)


def _config_of(composed: DictConfig, trusted: Sequence[str]) -> Config:
    job = HydraConfig.get()
    choices: Mapping[str, Any] = {str(group): name for group, name in job.runtime.choices.items()}
    in_sweep = job.mode == RunMode.MULTIRUN
    suffix = _suffix(job.job.override_dirname) if in_sweep else ""
    options, overrides = options_of(job), overrides_of(job)
    folders = folders_of(job.runtime.config_sources)
    config = read_config(composed, choices, command_text(overrides, options), suffix, folders, trusted)
    if not in_sweep:
        return config
    # the command that reproduces this study alone has no sweep suffix: it gets name and folder explicitly
    named = [f"study.{key}={value_text(config.data['study'][key])}" for key in ("name", "dir")]
    return replace(config, command=command_text([*overrides, *named], options))


def _suffix(overrides: str) -> str:
    """Returns the suffix of a study's folder name in a sweep: its overrides, each cut to `_PART_LENGTH`."""
    parts = overrides.replace("/", "_").replace("\\", "_").replace(" ", "").split(",")
    return ",".join(map(_cut, parts))


def _cut(text: str) -> str:
    return text if len(text) <= _PART_LENGTH else f"{text[:_PART_LENGTH]}-{digest_of(text)}"


def _print_error(errors: Console, text: str) -> int:
    errors.print(f"paredown: {redact_text(text)}")
    return USAGE


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact_text(record.getMessage()), None
    return True


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error that nobody handled, and those that led to it, without secrets."""
    sys.stderr.write(redact_text("".join(traceback.format_exception(kind, error, trace))))
