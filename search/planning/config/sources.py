"""What config files may say of Hydra itself, which makes objects of its own section before any job begins.

Hydra's callbacks, launchers, sweepers and logging handlers are objects that a config names, `hydra.job.env_set` sets environment
variables, and `pkg://` in `hydra.searchpath` imports a package. So each file that Hydra composes is checked when it is
read: those of Hydra and of Paredown may set what they like, any other one only keys that run nothing.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import yaml
from hydra._internal import hydra as hydra_internal
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import Container, DictConfig, OmegaConf

from search.planning.config.instantiate import TRUST_KEY
from search.planning.config.shipped import shipped
from search.planning.config.trusted import refusal
from spaces.errors import ConfigError, UntrustedTargetError

_HARMLESS = (
    "mode",
    "run",
    "sweep",
    "verbose",
    "help",
    "job.name",
    "job.chdir",
    "job.config",
    "sweeper.max_batch_size",
)
_SWEPT = "sweeper.params"
_CLUSTER = (
    "executor.address",
    "executor.runtime_env",
)  # a cluster gets the code and data, and sends objects back
_LOADER = "ConfigLoaderImpl"  # what Hydra makes its loader of


@contextmanager
def checked_files(trusted: Sequence[str]) -> Iterator[None]:
    """Makes Hydra check each config file within the context, before it acts on it.

    Args:
        trusted: Packages that the user trusts: a file may repeat them, not add any.
    """
    before = vars(hydra_internal)[_LOADER]
    setattr(hydra_internal, _LOADER, partial(_CheckedLoader, trusted))
    try:
        yield
    finally:
        setattr(hydra_internal, _LOADER, before)


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the command line's options and overrides as Hydra reads them.

    Raises:
        ConfigError: An option is unknown, or `--experimental-rerun`, which unpickles a file.
        SystemExit: An option lacks its value; argparse has printed the error.
    """
    given, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        option = unknown[0].lstrip("-")
        right = f"write {option}" if "=" in option else f"write {option}=VALUE"
        raise ConfigError(
            f"unknown option {unknown[0]}: keys of the config have no dashes, {right}; `paredown --help` lists the options"
        )
    if given.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun is refused: it runs what its file holds. The study's config.yaml has the command that runs it again"
        )
    return given


class _CheckedLoader(ConfigLoaderImpl):
    """Hydra's loader of configs, with the checks of this module."""

    def __init__(self, trusted: Sequence[str], config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._trusted = trusted

    def load_configuration(self, *arguments: Any, **more: Any) -> DictConfig:
        try:
            return super().load_configuration(*arguments, **more)
        except HydraException:  # some are OSErrors, too
            raise
        except ValueError as error:
            if isinstance(error, UnicodeError):
                raise ConfigError(f"a config file cannot be read: {error}") from error
            raise ConfigError(_misfit(str(error))) from error
        except (yaml.YAMLError, OSError) as error:
            raise ConfigError(f"a config file cannot be read: {' '.join(str(error).split())}") from error

    def _process_config_searchpath(self, config_name: Any, parsed_overrides: Any, repo: Any) -> None:
        by_hand = any(override.get_key_element() == "hydra.searchpath" for override in parsed_overrides)
        primary = None if by_hand or config_name is None else repo.load_config(config_path=config_name)
        if primary is not None and not _is_known(primary, config_name):
            _check(primary.config, _file(primary, config_name), self._trusted)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _load_single_config(self, default: ResultDefault, repo: Any) -> ConfigResult:
        loaded = super()._load_single_config(default=default, repo=repo)
        if not _is_known(loaded, str(default.config_path)):
            _check(loaded.config, _file(loaded, str(default.config_path)), self._trusted)
        return loaded


def _misfit(reason: str) -> str:
    """Returns the message for an override that Hydra or OmegaConf cannot apply to what is there."""
    if reason.startswith("Config group override must be"):
        return "a config group is chosen by the name of a file, or by a list of names, e.g. sampler=tpe or device=[host,stm32h743]"
    return f"an override or a config file does not fit what is there, e.g. a key below a list: {' '.join(reason.split())}"


def _is_known(loaded: ConfigResult, name: str) -> bool:
    """Whether a config comes with Hydra, was registered by installed code, or is Paredown's own primary config.

    Other files of Paredown are checked, too: a defaults list may place them under `hydra`.
    """
    own = loaded.path == f"file://{shipped()}" and name.removesuffix(".yaml") == "config"
    return own or loaded.path == "pkg://hydra.conf" or loaded.path.startswith("structured://")


def _file(loaded: ConfigResult, name: str) -> str:
    return f"{loaded.path.removeprefix('file://')}/{name.removesuffix('.yaml')}.yaml"


def _check(config: Container, file: str, trusted: Sequence[str]) -> None:
    """Raises ConfigError if a file's config, as it is placed in the whole, sets what only the command line may."""
    content = OmegaConf.to_container(config, resolve=False)
    if not isinstance(content, Mapping):
        return
    _check_trust(content, file, trusted)
    _check_cluster(content, file)
    for path, value in _leaves(content.get("hydra"), ""):
        if not _is_harmless(path, value):
            key = f"hydra{path}"
            raise UntrustedTargetError(
                f"{file}: {key} is refused: Hydra would run what it names. If you want it, say so on the command line, "
                f"{key}=VALUE"
            )


def _check_cluster(content: Mapping[Any, Any], file: str) -> None:
    """Raises UntrustedTargetError if a file names the cluster that gets the study's code and data, and sends objects back."""
    for path, value in _leaves(content.get("executor"), ".executor"):
        key = path.removeprefix(".")
        if (key == "executor" or key.startswith(_CLUSTER)) and value not in ("auto", "local"):
            raise UntrustedTargetError(
                f"{file}: {key} is refused: a cluster runs code, and so does what it sends back. If you trust it, say so on "
                f"the command line, {key}=VALUE, or by RAY_ADDRESS"
            )


def _check_trust(content: Any, file: str, trusted: Sequence[str]) -> None:
    for path, value in _leaves(content, ""):
        keys = path.removeprefix(".").split(".")
        names = value if isinstance(value, list) else [value]
        if TRUST_KEY in keys and value != f"${{{TRUST_KEY}}}" and not set(names) <= set(trusted):
            raise UntrustedTargetError(f"{file}: {refusal('.'.join(keys), value, names)}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields what a nested mapping holds, each with its path, e.g. `.job.name`; a list is one value."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif value is not None and value != {}:
        yield path, value


def _is_harmless(path: str, value: object) -> bool:
    path = path.removeprefix(".")
    if "_target_" in path:
        return False
    if path.startswith(f"{_SWEPT}."):
        swept = path.removeprefix(f"{_SWEPT}.").lstrip("+~")
        # Hydra makes objects of these, too, and resolves interpolations first
        return (
            not swept.startswith(("hydra", TRUST_KEY, *_CLUSTER))
            and not isinstance(value, list)
            and "${" not in str(value)
        )
    return path in _HARMLESS or path.startswith(tuple(f"{name}." for name in _HARMLESS))
