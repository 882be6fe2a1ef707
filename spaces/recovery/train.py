"""The train stage: trains a network from its present weights, e.g. random ones, on the train split's labels."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from spaces.candidate import StageValue, Value
from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec, Technique
from spaces.recovery.knobs import AUTO, KNOBS
from spaces.recovery.recover import RecoverStage

_DEFAULTS: Mapping[str, Any] = {"epochs": 20, "distillation_weight": 0.0}  # that differ from recovery's
# Recovery's knobs that have no place here: their defaults, but for the one that would need a network of the same features.
_ABSENT = (
    "cwd_weight",
    "cwd_temperature",
    "block_weights",
    "lora_rank",
    "adapters",
    "merge_weights",
    "tune",
    "experts",
    "balance_weight",
)
_OFF: Mapping[str, Any] = {k.name: k.default for k in KNOBS if k.name in _ABSENT} | {"cwd_weight": 0.0}


class TrainStage(RecoverStage):
    """Trains a torch network as `recover` does, with defaults for a first training.

    With `distillation_weight` above 0, the study's uncompressed network is the teacher, whatever its architecture.

    Args:
        threads: See `TrainingStage`.
        cuda_graphs: Whether a GPU records the network's passes and repeats them, which is several times as fast for a small
            network; not for networks whose operators change from step to step: see `training/graphed.py`.

    Raises:
        ConfigError: An argument is not of its type.
    """

    name = "train"
    knobs: tuple[KnobSpec, ...] = tuple(
        replace(knob, default=_DEFAULTS.get(knob.name, knob.default))
        for knob in KNOBS
        if knob.name not in _OFF
    )

    def __init__(self, threads: int = 2, cuda_graphs: bool = True) -> None:
        super().__init__(threads)
        if type(cuda_graphs) is not bool:
            raise ConfigError(f"stage.train.cuda_graphs must be true or false, not {cuda_graphs!r}")
        self.cuda_graphs = cuda_graphs

    def techniques(self) -> Iterator[tuple[str, Value, str, Technique]]:
        """Yields none: they are those of `recover`."""
        yield from ()

    def depends_on_network(self, values: Mapping[str, StageValue]) -> bool:
        """Returns whether a batch is one example, which BatchNorm cannot take; everything else suits every network."""
        return values.get("batch_size") == 1

    def sources(self, values: Mapping[str, StageValue]) -> frozenset[str]:
        """Returns the examples, and the uncompressed network where it teaches or chooses the augmentation."""
        chosen = self.defaults() | dict(values)
        taught = chosen["distillation_weight"] != 0 or chosen["augmentation"] == AUTO
        return frozenset({"train", "teacher"} if taught else {"train"})

    def recipe(self, values: Mapping[str, StageValue]) -> dict[str, StageValue]:
        """Returns a value for every knob of recovery, and whether passes are recorded."""
        return {**_OFF, **values, "cuda_graphs": self.cuda_graphs}
