"""`paredown quantize NET --data DATA --device DEVICE`: the common case in one line, as the config that it stands for."""

import shlex
from argparse import Namespace
from collections.abc import Sequence

from search.cli.verbs.options import VerbParser
from search.report.console import PlainConsole
from search.requests.request import Request


def run(arguments: Sequence[str]) -> list[str]:
    """Prints the equivalent command, and returns its words, which are run next.

    Raises:
        ConfigError: An option is wrong.
        InputError: The model or the data is missing, damaged, or of an unknown kind.
    """
    parser = parser_of(
        "quantize",
        "Quantizes a network for devices: a study of quantizations, whose report says which file to ship.",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the space, the devices and the time it takes, and stop"
    )
    given = parser.parse_intermixed_args(arguments)
    request = request_of(given)
    overrides = [*request.overrides(), *(["dry_run=true"] if given.dry_run else [])]
    console = PlainConsole()
    for note in request.choices().notes:
        console.print(f"note: {note}", soft_wrap=not console.is_terminal)
    console.print(f"the same as: {shlex.join(['paredown', *overrides])}", soft_wrap=True)
    return overrides


def parser_of(verb: str, description: str) -> VerbParser:
    """Returns a parser with what the verbs of the common case take."""
    parser = VerbParser(f"paredown {verb}", description=description)
    parser.add_argument("model", nargs="?", help="an ONNX file, or a model of the zoo, e.g. digits_cnn")
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="further overrides of the config, which prevail"
    )
    parser.add_argument(
        "--data",
        help="folder of images, wav files or texts by class, images/ with masks/, COCO's .json with images, .npz with x (or the inputs' names) and y, "
        ".csv, .tsv or .parquet; without labels: any folder of images, .npz without y",
    )
    parser.add_argument("--label", metavar="COLUMN", help="column of labels in a table")
    parser.add_argument(
        "--device",
        metavar="NAME",
        action="append",
        help="a device, or several: --device host,stm32h743 (default: host)",
    )
    parser.add_argument("--flash", metavar="SIZE", help="most bytes of flash, e.g. 256KiB")
    parser.add_argument("--ram", metavar="SIZE", help="most bytes of memory while it runs, e.g. 64KiB")
    parser.add_argument("--drop", metavar="LOSS", help='most loss of the metric, e.g. "1 %%"')
    parser.add_argument("--trials", metavar="N", type=int, help="number of trials")
    parser.add_argument("--name", help="name of the study (default: the model's)")
    return parser


def request_of(given: Namespace) -> Request:
    """Returns what the options ask for.

    Raises:
        ConfigError: There is no model, or a word is no override.
    """
    from spaces.errors import ConfigError

    words = [word for word in (given.model, *given.words) if word is not None]
    models = [word for word in words if "=" not in word]
    if len(models) != 1:
        raise ConfigError(
            f"one model is needed, an ONNX file or a name of the zoo, but got {', '.join(models) or 'none'}: e.g. paredown quantize net.onnx --data images/"
        )
    devices = [name for listed in given.device or ["host"] for name in listed.strip("[]").split(",") if name]
    return Request(
        models[0], given.data, devices, given.flash, given.ram, given.drop, given.trials, given.name, given.label,
        [word for word in words if "=" in word],
    )  # fmt: skip
