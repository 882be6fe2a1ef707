"""The common case: one network, its data, the devices, and what must fit, as a config."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.planning.config.group_files import files_of
from search.planning.config.schema import study_name
from search.planning.config.shipped import shipped
from search.requests.choices import Choices, values_of
from search.requests.data_kinds import data_choices
from search.requests.network import Network, model_choices
from spaces.errors import ConfigError, unknown_name
from spaces.units import parse_bytes

_HERE, _DYNAMIC = "host", "matrix_products"  # a device, a space


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
        model, network = model_choices(self.model, self.words)
        return model | self._data(network) | self._limits() | self._space(network) | self._study()

    def overrides(self) -> list[str]:
        """Returns the overrides of the command that does the same."""
        return [*self.choices().overrides(), *self.words]

    def _data(self, network: Network) -> Choices:
        if any(word.startswith("task=") for word in self.words):
            root = {} if self.data is None else {"task.root": self.data}
            return Choices({}, root)
        if self.data is None:
            raise ConfigError(
                "--data is needed: the examples that calibrate and judge the network, e.g. --data images/ or --data data.npz"
            )
        return data_choices(Path(self.data).expanduser(), network, self.label, values_of(self.words))

    def _limits(self) -> Choices:
        values: dict[str, Any] = {}
        for key, size in (("flash_bytes", self.flash), ("peak_sram_bytes", self.ram)):
            if size is not None:
                parse_bytes(size, "--flash" if key == "flash_bytes" else "--ram")
                values[f"objective.constraints.{key}.max"] = size
        added = frozenset(values)
        drop = {} if self.drop is None else {"objective.constraints.drop.max": yaml.safe_load(self.drop)}
        return Choices({"device": list(self.devices)}, {**values, **drop}, added)

    def _space(self, network: Network) -> Choices:
        """Returns the space: with ranges found while the network runs, too, for one of matrix products on this machine."""
        own = any(
            word.startswith(("space", "++space", "+space", "stage", "experiment")) for word in self.words
        )
        if own or not network.multiplies_matrices or _HERE not in self.devices:
            return Choices()
        return Choices({"space": _DYNAMIC})

    def _study(self) -> Choices:
        trials = {} if self.n_trials is None else {"study.n_trials": self.n_trials}
        return Choices({}, {"study.name": self.name or study_name(self.model), **trials})


def check_devices(names: Sequence[str]) -> None:
    """Raises ConfigError if a device, or a group of devices, is unknown."""
    known = files_of("device", [shipped()])
    for name in names:
        if name not in known:
            raise ConfigError(f"{unknown_name('device', name, known)} `paredown-devices` describes them.")
