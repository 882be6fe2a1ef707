"""What the verbs of `paredown` have in common: their options, and where they find configs."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from search.planning.config.shipped import shipped
from search.planning.config.trusted import trusted_by_hand
from spaces.errors import ConfigError


class VerbParser(ArgumentParser):
    """A parser whose mistakes are errors of the config, with the fix, as everywhere."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises ConfigError with argparse's message."""
        raise ConfigError(
            f"{self.prog.removeprefix('paredown ')}: {message}; `{self.prog} --help` explains it"
        )


def add_config_dir(parser: ArgumentParser) -> None:
    """Adds the option that names folders of configs of one's own."""
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        action="append",
        default=[],
        help="add the configs of DIR, as `paredown --config-dir DIR` does",
    )


def folders_of(given: Namespace) -> list[Path]:
    """Returns the folders of configs.

    Raises:
        ConfigError: A folder does not exist.
    """
    own = [Path(folder).expanduser() for folder in given.config_dir]
    for folder in own:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: there is no such folder")
    return [shipped(), *own]


def indented(text: str, width: int, by: int) -> str:
    """Returns a text in lines of a width, indented by some columns, without blanks at their ends."""
    lead = " " * by
    return fill(
        text,
        max(width, by + 20),
        initial_indent=lead,
        subsequent_indent=lead,
        break_long_words=False,
        break_on_hyphens=False,
    )


def words_of(given: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Divides a verb's words into those of its own, and the packages that the user trusts by `trusted_modules=[PACKAGE]`.

    Raises:
        ConfigError: A word is another override.
    """
    overrides = [word for word in given if "=" in word]
    for word in overrides:
        if not word.startswith("trusted_modules="):
            raise ConfigError(
                f"{word!r} is not taken here; the only override that is: trusted_modules=[PACKAGE]"
            )
    return [word for word in given if "=" not in word], trusted_by_hand(overrides)
