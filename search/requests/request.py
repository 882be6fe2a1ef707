"""The common case: one network, its data, the devices, and what must fit, as a config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.planning.config.group_files import files_of
from search.planning.config.shipped import shipped
from search.requests.choices import Choices
from search.requests.data_kinds import data_choices
from spaces.errors import ConfigError, InputError, unknown_name
from spaces.units import parse_bytes

_TORCH = (".pt", ".pth", ".th", ".ckpt", ".safetensors")
_KINDS = ("onnx", "torch")  # of the group `model`, the files that are no network
_SHAPE = "model.input_shape="


@dataclass(frozen=True)
class Request:
    """What is to be quantized, for what.

    Attributes:
        model: An ONNX file, or the name of a model of the zoo.
        data: A file or folder of data, see `data_choices`.
        devices: Names of devices.
        flash: Most bytes of flash on them, e.g. `256 KiB`; None for no limit.
        ram: Most bytes of memory while it runs; None for no limit.
        drop: Most loss of the metric, e.g. `1 %`; None for the objective's own.
        n_trials: Number of trials; None for the default.
        name: Name of the study; None for that of the model.
        label: The column of labels in a table.
        words: Further overrides, which prevail.
    """

    model: str
    data: str | None
    devices: Sequence[str] = ("host",)
    flash: str | None = None
    ram: str | None = None
    drop: str | None = None
    n_trials: int | None = None
    name: str | None = None
    label: str | None = None
    words: Sequence[str] = ()

    def choices(self) -> Choices:
        """Returns the config, checked as far as the files tell.

        Raises:
            ConfigError: A device is unknown, or a limit is no size.
            InputError: The model or the data is missing, damaged, or of an unknown kind.
        """
        check_devices(self.devices)
        model, shape = model_choices(self.model, self.words)
        return model | self._data(shape) | self._limits() | self._study()

    def overrides(self) -> list[str]:
        """Returns the overrides of the command that does the same."""
        return [*self.choices().overrides(), *self.words]

    def _data(self, shape: tuple[int, ...]) -> Choices:
        if any(word.startswith("task=") for word in self.words):
            root = {} if self.data is None else {"task.root": self.data}
            return Choices({}, root)
        if self.data is None:
            raise ConfigError(
                "--data is needed: the examples that calibrate and judge the network, e.g. --data images/ or --data data.npz"
            )
        return data_choices(Path(self.data).expanduser(), shape, self.label)

    def _limits(self) -> Choices:
        values: dict[str, Any] = {}
        for key, size in (("flash_bytes", self.flash), ("peak_sram_bytes", self.ram)):
            if size is not None:
                parse_bytes(size, "--flash" if key == "flash_bytes" else "--ram")
                values[f"objective.constraints.{key}.max"] = size
        added = frozenset(values)
        drop = {} if self.drop is None else {"objective.constraints.drop.max": yaml.safe_load(self.drop)}
        return Choices({"device": list(self.devices)}, {**values, **drop}, added)

    def _study(self) -> Choices:
        trials = {} if self.n_trials is None else {"study.n_trials": self.n_trials}
        return Choices({}, {"study.name": self.name or study_name(self.model), **trials})


def check_devices(names: Sequence[str]) -> None:
    """Raises ConfigError if a device, or a group of devices, is unknown."""
    known = files_of("device", [shipped()])
    for name in names:
        if name not in known:
            raise ConfigError(f"{unknown_name('device', name, known)} `paredown-devices` describes them.")


def model_choices(model: str, words: Sequence[str] = ()) -> tuple[Choices, tuple[int, ...]]:
    """Returns the choice of a model, and the shape of one of its examples (0 where it is open).

    Args:
        model: An ONNX file, or a name of the zoo.
        words: Overrides, among which `model.input_shape` may be.

    Raises:
        InputError: It is neither, or has several inputs.
    """
    from spaces.models.onnx_file import read_onnx
    from spaces.stages.artifact import InputSpec

    zoo = {name: file for name, file in files_of("model", [shipped()]).items() if name not in _KINDS}
    given = next((tuple(yaml.safe_load(w.removeprefix(_SHAPE))) for w in words if w.startswith(_SHAPE)), None)
    if model in zoo:
        own = zoo[model].content().get("input_shape")
        return Choices({"model": model}), given or tuple(own if isinstance(own, list) else ())
    path = Path(model).expanduser()
    if path.suffix.lower() in _TORCH:
        raise InputError(
            f"{model} is a checkpoint of torch by its name, which does not hold the network: paredown model=torch model.cls=PACKAGE.CLASS "
            f"model.checkpoint={model} 'model.input_shape=[...]', or search.quantize(module, loader) in Python"
        )
    if path.suffix.lower() != ".onnx" and not path.exists():
        raise InputError(unknown_name("model", model, zoo) + " Or an ONNX file")
    spec = InputSpec.of_graph(read_onnx(path).graph)
    if spec.others and not any(word.startswith("task=") for word in words):
        names = ", ".join(tensor.name for tensor in spec.tensors)
        raise InputError(
            f"{model} has the inputs {names}: choose the data yourself, task=npz with arrays of these names"
        )
    return Choices({"model": "onnx"}, {"model.checkpoint": model}), given or spec.shape


def study_name(model: str) -> str:
    """Returns the name of a study of a model: that of the file, with characters that a folder can have."""
    return re.sub(r"[^\w.+-]+", "_", Path(model).stem).strip("._") or "study"
