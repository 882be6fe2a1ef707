"""The command line's job from Python: for notebooks, scripts and tests."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from search.planning.config.device_files import folders_of
from search.planning.config.hydra_errors import hydra_text
from search.planning.config.schema import Config, read_config, register_schema
from search.record.results import Results
from spaces.errors import ConfigError


def compose(overrides: Sequence[str] = (), space: Mapping[str, Any] | None = None) -> Config:
    """Composes a config as the command line does.

    Args:
        overrides: What would stand on the command line, e.g. `["task=cifar10", "seed=1"]`.
        space: A `space` section to search instead of the composed one.

    Raises:
        ConfigError: An override is wrong.
    """
    register_schema()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            composed = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # so that ${hydra:...} resolves
            choices = OmegaConf.to_container(composed.hydra.runtime.choices)
            folders = folders_of(composed.hydra.runtime.config_sources)
            with open_dict(composed):
                del composed["hydra"]
                if space is not None:
                    composed.space = dict(space)
            assert isinstance(choices, dict)
            command = f"paredown {shlex.join(overrides)}".strip()
            named = {str(group): name for group, name in choices.items()}
            return read_config(composed, named, command, search_path=folders)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(hydra_text(error)) from error
    finally:
        HydraConfig.instance().cfg = None
        GlobalHydra.instance().hydra = outer


def run(
    overrides: Sequence[str] = (), space: Mapping[str, Any] | None = None, console: Console | None = None
) -> Results:
    """Runs, or resumes, a study and returns what it found. Its files are in `results.folder`.

    Args:
        overrides: What would stand on the command line.
        space: A `space` section to search instead of the composed one.
        console: Where progress is drawn; None takes standard output.

    Raises:
        ParedownError: Something in the config or the files is wrong.
    """
    from search.planning.session import prepare
    from search.study.progress import LiveProgress
    from search.study.study import run_study

    config = compose(overrides, space)
    session = prepare(config, lambda text: None)
    return run_study(session.plan, LiveProgress(console or Console(highlight=False))).results
