"""The command line's job from Python: for notebooks, scripts and tests."""

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from search.planning.config.command import command_text, section_overrides
from search.planning.config.device_files import folders_of
from search.planning.config.hydra_errors import hydra_text, replacing
from search.planning.config.schema import Config, read_config, register_schema
from search.planning.config.shipped import shipped
from search.planning.config.sources import checked_files
from search.planning.config.trusted import trusted_by_hand
from search.record.results import StudyRecord
from search.report.console import PlainConsole
from search.results import Results
from spaces.errors import ConfigError

if TYPE_CHECKING:
    import torch


def compose(overrides: Sequence[str] = (), space: Mapping[str, Any] | None = None) -> Config:
    """Composes a config as the command line does.

    Args:
        overrides: What would stand on the command line, e.g. `["task=cifar10", "seed=1"]`.
        space: A `space` section to search instead of the composed one.

    >>> compose(["study.n_trials=3"]).study.n_trials
    3

    Raises:
        ConfigError: An override is wrong.
    """
    register_schema()
    trusted = trusted_by_hand(overrides)
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with checked_files(trusted), initialize_config_dir(str(shipped()), version_base="1.3"):
            composed = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # so that ${hydra:...} resolves
            choices = OmegaConf.to_container(composed.hydra.runtime.choices)
            folders = folders_of(composed.hydra.runtime.config_sources)
            with open_dict(composed):
                del composed["hydra"]
            again = [*overrides, *(_replace_space(composed, space) if space is not None else ())]
            command = command_text(again)
            assert isinstance(choices, dict)
            named = {str(group): name for group, name in choices.items()}
            return read_config(composed, named, command, search_path=folders, trusted=trusted)
    except (HydraException, OmegaConfBaseException) as error:
        if (better := replacing(overrides, error)) is not None:
            return compose(better, space)
        raise ConfigError(hydra_text(error, trusted)) from error
    finally:
        HydraConfig.instance().cfg = None
        GlobalHydra.instance().hydra = outer


def _replace_space(composed: DictConfig, space: Mapping[str, Any]) -> list[str]:
    """Sets the `space` section and returns the overrides that would have done so on the command line."""
    before = OmegaConf.to_container(composed)
    with open_dict(composed):
        composed.space = dict(space)
    after = OmegaConf.to_container(composed)
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    return section_overrides("space", before.get("space"), after["space"])


def run(
    overrides: Sequence[str] = (), space: Mapping[str, Any] | None = None, console: Console | None = None
) -> Results:
    """Runs, or resumes, a study and returns what it found. Its files are in `results.folder`.

    Ctrl-C ends the search, and the results so far are returned. SIGTERM and SIGHUP end it too, with all files whole, and
    then have the effect that they had before the call: by default they end the process.

    With `dry_run=true` it prints the plan as the command line does, and returns results without a trial: no file is made.

    Args:
        overrides: What would stand on the command line.
        space: A `space` section to search instead of the composed one.
        console: Where progress is drawn; None takes standard output.

    >>> run(overrides, console=quiet).best().number
    0

    Raises:
        ParedownError: Something in the config or the files is wrong.
    """
    return Results(_run(compose(overrides, space), console))


def quantize(
    module: "torch.nn.Module",
    loader: Iterable[Any],
    device: str | Sequence[str] = "host",
    *,
    flash: str | None = None,
    ram: str | None = None,
    drop: str | None = None,
    name: str = "network",
    n_trials: int | None = None,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> Results:
    """Quantizes a live torch network: what `paredown quantize` does with files.

    The network is exported, and the data stored, in `outputs/NAME/input`; so the study can be resumed, and its report has the command
    that runs it again.

    >>> results = quantize(net, loader, device="stm32h743", flash="256KiB", n_trials=2, overrides=short, console=quiet)
    >>> results.model().suffix
    '.onnx'

    Args:
        module: The trained network, with one input; it is left as it is.
        loader: Yields batches `(inputs, labels)`. Labels are classes if they are whole numbers, else numbers to predict.
            Where it yields inputs alone, candidates are judged by the outputs of `module`.
        device: A device's name, or several.
        flash: Most bytes of flash, e.g. `256 KiB`.
        ram: Most bytes of memory while it runs.
        drop: Most loss of the metric, e.g. `1 %`.
        name: The study's name.
        n_trials: Number of trials.
        overrides: What else would stand on the command line.
        console: Where progress is drawn; None takes standard output.

    Raises:
        ParedownError: The network cannot be exported, the loader yields something else, or a setting is wrong.
    """
    from search.requests.live import write_live
    from search.requests.request import Request, check_devices

    devices = [device] if isinstance(device, str) else list(device)
    check_devices(devices)
    model, data = write_live(module, loader, Path("outputs", name, "input"))
    request = Request(
        str(model), str(data), devices, flash, ram, drop, n_trials, name, words=tuple(overrides)
    )
    return run(request.overrides(), console=console)


@dataclass(frozen=True)
class Study:
    """A study that a config declares.

    >>> study = Study(compose(overrides))
    >>> len(study.run(quiet).to_dataframe())
    2

    Attributes:
        config: What `compose` returned.
    """

    config: Config

    def run(self, console: Console | None = None) -> Results:
        """Runs, or resumes, the study and returns what it found.

        Args:
            console: Where progress is drawn; None takes standard output.

        Raises:
            ParedownError: Something in the config or the files is wrong.
        """
        return Results(_run(self.config, console))


def _run(config: Config, console: Console | None) -> StudyRecord:
    from search.planning.session import prepare
    from search.study.progress import LiveProgress
    from search.study.study import results_before, run_study

    session = prepare(config, lambda text: None)
    shown = console or PlainConsole()
    if config.data["dry_run"]:
        shown.print(session.description())
        return results_before(session.plan)
    outcome = run_study(session.plan, LiveProgress(shown))
    if outcome.failed:
        shown.print(outcome.failed)
    if outcome.signal is not None and outcome.signal != signal.SIGINT:
        signal.raise_signal(outcome.signal)  # the study has ended; now it ends the process that called us
    return outcome.results
