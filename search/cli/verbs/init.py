"""`paredown init`: asks for model, data, device and limits, checks each answer, and writes the config."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from search.cli.verbs.options import indented
from search.cli.verbs.quantize import parser_of
from search.planning.config.schema import study_name
from search.report.console import PlainConsole
from search.requests.choices import Choices, values_of
from search.requests.data_kinds import data_choices
from search.requests.network import model_choices
from search.requests.request import Request, check_devices
from spaces.errors import ConfigError, ParedownError
from spaces.units import parse_bytes

OK = 0
_FOLDER = "configs"
_PATHS = ("model.checkpoint", "task.root", "task.data.tokenizer")
_NO_FILES = (None, "bytes", "words")


def run(arguments: Sequence[str]) -> int:
    """Asks for what the options leave open, if there is a terminal; writes the file and says how to run it.

    Returns:
        The exit status, 0.

    Raises:
        ConfigError: An option is wrong, or one is missing and nobody can be asked.
        InputError: The model or the data is missing, damaged, or of an unknown kind.
    """
    parser = parser_of(
        "init",
        "Asks for model, data and device, and writes a config that `paredown` runs; options answer beforehand.",
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", default=_FOLDER, help=f"where the config goes (default: {_FOLDER})"
    )
    parser.add_argument("--force", action="store_true", help="replace a config of this name")
    given = parser.parse_intermixed_args(arguments)
    console = PlainConsole()
    words = [word for word in (given.model, *given.words) if word and "=" in word]
    model = next((word for word in (given.model, *given.words) if word and "=" not in word), None)
    devices = ",".join(given.device).replace("[", "").replace("]", "") if given.device else None
    ask = _Questions(console, sys.stdin.isatty())
    model = ask(
        "model",
        "the network: an ONNX file, or a name of the zoo",
        model,
        lambda text: model_choices(text, words),
    )
    _, network = model_choices(model, words)
    data = given.data
    if not any(word.startswith("task=") for word in words):
        data = ask(
            "--data",
            "the data: a folder of images (by class, or without labels) or texts by class, images with masks or boxes, .npz, .csv ...",
            data,
            lambda text: data_choices(Path(text).expanduser(), network, given.label, values_of(words)),
        )
    devices = ask(
        "--device",
        "the device, or several: NAME,NAME (`paredown-devices` lists them)",
        devices,
        lambda text: check_devices(_listed(text)),
        "host",
    )
    flash = ask(
        "--flash", "most bytes of flash, e.g. 256KiB (empty: no limit)", given.flash, _checked_size, ""
    )
    request = Request(
        model, data, _listed(devices), flash or None, given.ram, given.drop, given.trials, given.name, given.label, words
    )  # fmt: skip
    return _write(request, Path(given.config_dir), given.force, console)


class _Questions:
    """Asks at the terminal, again until an answer is valid.

    Args:
        console: Where questions are printed.
        can_ask: Whether somebody is there.
    """

    def __init__(self, console: PlainConsole, can_ask: bool) -> None:
        self._console, self._can_ask = console, can_ask

    def __call__(
        self,
        option: str,
        question: str,
        given: str | None,
        check: Callable[[str], object],
        default: str | None = None,
    ) -> str:
        """Returns a valid answer: the given one, or else what is typed, or else the default.

        Raises:
            ConfigError: Nobody can be asked, and there is no default.
            ParedownError: The given answer is invalid.
        """
        if given is None and not self._can_ask:
            if default is None:
                raise ConfigError(f"{option} is missing, and there is no terminal to ask at: {question}")
            return default
        if given is not None:
            check(given)
            return given
        while True:
            shown = f" [{default}]" if default else ""
            try:
                answer = self._console.input(f"{question}{shown}: ", markup=False).strip() or (default or "")
                if answer or default is None:
                    check(answer)
            except EOFError as error:
                raise ConfigError(f"{option} was not answered; nothing is written") from error
            except ParedownError as error:
                self._console.print(indented(str(error), self._console.width, 2), soft_wrap=True)
            else:
                return answer


def _checked_size(text: str) -> object:
    return parse_bytes(text, "--flash") if text else None


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _write(request: Request, folder: Path, replaces: bool, console: PlainConsole) -> int:
    name = request.name or study_name(request.model)
    path = folder / "experiment" / f"{name}.yaml"
    if path.exists() and not replaces:
        raise ConfigError(f"{path} exists: choose another name with --name NAME, or replace it with --force")
    choices = _absolute(replace(request, name=name).choices())
    remark = f"Quantizes {Path(request.model).name} for {', '.join(request.devices)}. Written by `paredown init`; every key can be changed here."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(choices.experiment(name, str(folder), remark), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    command = shlex.join(["paredown", "--config-dir", str(folder), f"experiment={name}", *request.words])
    for note in choices.notes:
        console.print(f"note: {note}", soft_wrap=not console.is_terminal)
    console.print(
        f"written to {path}\nlook first:  {command} dry_run=true\nrun it:      {command}", soft_wrap=True
    )
    return OK


def _absolute(choices: Choices) -> Choices:
    """Returns the choices with whole paths, so that the config works from every folder."""
    paths = {
        key: str(Path(value).expanduser().resolve())
        for key, value in choices.values.items()
        if key in _PATHS and value not in _NO_FILES
    }
    return replace(choices, values={**choices.values, **paths})
