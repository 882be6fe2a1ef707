"""The knobs of the recover stage, and which of them have no effect beside which values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one_cycle", "cosine", "linear", "constant")
AUGMENTATIONS = (
    "none",
    "mixup",
    "flip",
    "crop",
    "crop_mixup",
    "flip_crop",
    "flip_crop_mixup",
    "jitter",
    "scale",
    "time_shift",
    "signal",
)
BLOCK_WEIGHTS = ("none", "inverse_sensitivity", "frozen_prefix")

KNOBS = (
    KnobSpec("epochs", 0, "passes over the train split; 0 leaves the network as it is", low=0, high=1000),
    KnobSpec("optimizer", "sgd", "sgd has Nesterov's momentum of 0.9", OPTIMIZERS),
    KnobSpec("learning_rate", 0.03, "its peak", low=1e-6, high=1.0),
    KnobSpec("schedule", "one_cycle", "how the learning rate goes over all epochs", SCHEDULES),
    KnobSpec("batch_size", 64, "examples a step", low=2, high=4096),
    KnobSpec("weight_decay", 5e-4, "on weights, never on biases and BatchNorm", low=0.0, high=0.1),
    KnobSpec(
        "augmentation", "none", "random changes of the inputs; mixup mixes each with another", AUGMENTATIONS
    ),
    KnobSpec("label_smoothing", 0.0, "share of a label that is spread over all classes", low=0.0, high=0.5),
    KnobSpec(
        "distillation_weight",
        0.5,
        "share of the loss that is by the uncompressed network's logits; at 1, labels are not needed",
        low=0.0,
        high=1.0,
    ),
    KnobSpec("temperature", 4.0, "of the logits in distillation", low=1.0, high=20.0),
    KnobSpec("cwd_weight", 10.0, "of channel-wise distillation of features, on top", low=0.0, high=100.0),
    KnobSpec("cwd_temperature", 1.0, "of the features in channel-wise distillation", low=0.5, high=20.0),
    KnobSpec(
        "block_weights",
        "none",
        "learning rates by block: less where outputs hang on it, or none before the first cut",
        BLOCK_WEIGHTS,
    ),
    KnobSpec(
        "lora_rank", 0, "train low-rank changes of linear layers only; 0 trains all weights", low=0, high=1024
    ),
)


@dataclass(frozen=True)
class Silence:
    """A knob that has no effect beside some values of another.

    Attributes:
        other: The other knob.
        by: Whether one of its values silences the knob.
        reason: Why, for people.
    """

    other: str
    by: Callable[[Any], bool]
    reason: str


SILENT = {
    "temperature": Silence("distillation_weight", lambda v: v == 0, "nothing is distilled from logits"),
    "label_smoothing": Silence("distillation_weight", lambda v: v == 1, "labels are not looked at"),
    "cwd_temperature": Silence("cwd_weight", lambda v: v == 0, "nothing is distilled from features"),
    "block_weights": Silence("lora_rank", lambda v: v > 0, "LoRA leaves the blocks' own weights alone"),
}


def canonical(values: Mapping[str, StageValue], has_features: bool) -> dict[str, StageValue]:
    """Maps knobs that have no effect beside the others to their defaults.

    Args:
        values: A value for every knob.
        has_features: Whether the network has features that channel-wise distillation can compare.
    """
    defaults: dict[str, StageValue] = {knob.name: knob.default for knob in KNOBS}
    if values["epochs"] == 0:
        return defaults
    silent = {name for name, rule in SILENT.items() if rule.by(values[rule.other])}
    if not has_features:
        silent |= {"cwd_weight", "cwd_temperature"}
    return {name: defaults[name] if name in silent else value for name, value in values.items()}


def empty_knobs(domains: Mapping[str, tuple[Value, ...]], has_features: bool) -> dict[str, str]:
    """Returns the knobs of a space that have no effect beside any value of the others, each with the reason.

    Args:
        domains: For each knob of the space, the values that it can take.
        has_features: Whether the network has features that channel-wise distillation can compare.
    """
    if possible(domains, "epochs") == (0,):
        return {name: "epochs is 0: nothing is trained" for name in domains if name != "epochs"}
    found = {
        name: f"{rule.other} is {possible(domains, rule.other)[0]}: {rule.reason}"
        for name, rule in SILENT.items()
        if name in domains and all(rule.by(value) for value in possible(domains, rule.other))
    }
    if not has_features:
        nothing = "no module of the network yields channels of several places to compare"
        found |= {name: nothing for name in ("cwd_weight", "cwd_temperature") if name in domains}
    return found


def possible(domains: Mapping[str, tuple[Value, ...]], name: str) -> tuple[Any, ...]:
    """Returns the values that a knob can take: its default if the space does not name it, its ends if it is a range."""
    knob = next(knob for knob in KNOBS if knob.name == name)
    values = domains.get(name, (knob.default,))
    return values or (knob.low, knob.high)
