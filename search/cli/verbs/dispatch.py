"""The verbs of `paredown`: a first word without `=` that is no option; everything else is the Hydra application."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from spaces.errors import ConfigError, unknown_name

VERBS: Mapping[str, str] = {
    "quantize": "quantize one network for a device",
    "init": "ask for model, data and device, and write a config",
    "knobs": "every knob with default, range and description",
    "methods": "every method with its paper, what it needs, and the command that tries it",
    "mcp": "serve devices, methods and studies to an agent (Model Context Protocol)",
}
"""Name of a verb, and of its module beside this one, to what it does."""


def verb_of(arguments: Sequence[str]) -> str | None:
    """Returns the verb of a command line; None if it is one of the Hydra application.

    >>> verb_of(["knobs", "quantize"]), verb_of(["seed=1"]), verb_of(["--multirun", "seed=1,2"]), verb_of([])
    ('knobs', None, None, None)
    """
    first = arguments[0] if arguments else ""
    return None if not first or "=" in first or first.startswith(("-", "+", "~")) else first


def run_verb(verb: str, arguments: Sequence[str]) -> int | list[str]:
    """Runs a verb and returns its exit status, or the words of the command that is to be run instead.

    Raises:
        ConfigError: There is no such verb, or an argument is wrong.
        SystemExit: Help was asked for and printed.
    """
    if verb not in VERBS:
        raise ConfigError(
            f"{unknown_name('verb', verb, VERBS)} An override of the config is written with `=`, e.g. study.n_trials=12"
        )
    run: Callable[[Sequence[str]], int | list[str]] = import_module(f"search.cli.verbs.{verb}").run
    return run(arguments)
