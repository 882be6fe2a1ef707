"""The knobs of the recover stage, and which of them have no effect at which values of the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one_cycle", "cosine", "linear", "constant")
AUTO = "auto"
AUGMENTATIONS = (
    AUTO,
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
EXPERTS = ("float", "ternary")
TUNED = ("all", "bias")
STORED_BITS = (2, 4, 8, 32)

KNOBS = (
    KnobSpec("epochs", 0, "passes over the train split; 0 leaves the network as it is", low=0, high=1000),
    KnobSpec("optimizer", "sgd", "sgd uses Nesterov momentum of 0.9", OPTIMIZERS),
    KnobSpec(
        "learning_rate",
        AUTO,
        "peak learning rate; auto measures it, in a range test of at most 40 steps on the network to train",
        low=1e-6,
        high=1.0,
        words=(AUTO,),
    ),
    KnobSpec("schedule", "one_cycle", "schedule of the learning rate over all epochs", SCHEDULES),
    KnobSpec("batch_size", 64, "examples per step", low=2, high=4096),
    KnobSpec("weight_decay", 5e-4, "on weights, never on biases and BatchNorm", low=0.0, high=0.1),
    KnobSpec(
        "augmentation",
        AUTO,
        "random changes of the inputs; auto takes those that the uncompressed network's answers survive, mixup blends pairs of examples",
        AUGMENTATIONS,
    ),
    KnobSpec("label_smoothing", 0.0, "share of a label that is spread over all classes", low=0.0, high=0.5),
    KnobSpec(
        "distillation_weight",
        0.5,
        "weight of distillation from the uncompressed network's logits; at 1, labels are not used",
        low=0.0,
        high=1.0,
    ),
    KnobSpec("temperature", 4.0, "softmax temperature of the logits in distillation", low=1.0, high=20.0),
    KnobSpec("cwd_weight", 30.0, "weight of channel-wise distillation of features", low=0.0, high=100.0),
    KnobSpec("cwd_temperature", 1.0, "temperature of channel-wise distillation", low=0.5, high=20.0),
    KnobSpec(
        "block_weights",
        "none",
        "learning-rate factors by block: smaller for sensitive blocks, or 0 before the first cut",
        BLOCK_WEIGHTS,
    ),
    KnobSpec("lora_rank", 0, "rank of LoRA updates of linear layers; 0 trains all weights", low=0, high=1024),
    KnobSpec("tune", "all", "parameters that are trained: all or only biases", TUNED),
    KnobSpec(
        "stored_activation_bits",
        32,
        "bits in which activations are kept for the backward pass; 32 keeps them as they are",
        STORED_BITS,
    ),
    KnobSpec("experts", "float", "weights of routed experts: ternary ones are -g, 0 or g", EXPERTS),
    KnobSpec(
        "balance_weight",
        0.01,
        "weight of the loss that spreads tokens over routed experts",
        low=0.0,
        high=1.0,
    ),
)


@dataclass(frozen=True)
class Inactive:
    """The values of another knob at which a knob has no effect.

    Attributes:
        other: The other knob.
        at: Whether the knob has no effect at a value of the other knob.
        reason: Explanation for users.
    """

    other: str
    at: Callable[[Any], bool]
    reason: str


INACTIVE = {
    "temperature": Inactive("distillation_weight", lambda v: v == 0, "nothing is distilled from logits"),
    "label_smoothing": Inactive("distillation_weight", lambda v: v == 1, "labels are not used"),
    "cwd_temperature": Inactive("cwd_weight", lambda v: v == 0, "nothing is distilled from features"),
    "block_weights": Inactive("lora_rank", lambda v: v > 0, "LoRA does not train the blocks' own weights"),
    "tune": Inactive("lora_rank", lambda v: v > 0, "LoRA trains low-rank updates alone"),
    "lora_rank": Inactive("experts", lambda v: v == "ternary", "ternary experts train their own weights"),
}


@dataclass(frozen=True)
class Parts:
    """What a network has that some knobs are about.

    Attributes:
        features: Whether it has features that channel-wise distillation can compare.
        experts: Whether it has routed experts.
    """

    features: bool = False
    experts: bool = False

    def without_effect(self) -> dict[str, str]:
        """Returns the knobs that have no effect on the network at any values, each with the reason."""
        no_features = "no module of the network outputs channels with several positions to compare"
        no_experts = "the network has no routed experts"
        return {
            **({} if self.features else dict.fromkeys(("cwd_weight", "cwd_temperature"), no_features)),
            **({} if self.experts else dict.fromkeys(("experts", "balance_weight"), no_experts)),
        }


def canonical(values: Mapping[str, StageValue], parts: Parts) -> dict[str, StageValue]:
    """Returns the values, with the default for knobs that have no effect at these values.

    Args:
        values: A value for every knob.
        parts: What the network has.
    """
    defaults: dict[str, StageValue] = {knob.name: knob.default for knob in KNOBS}
    if values["epochs"] == 0:
        return defaults
    absent = parts.without_effect()
    found = {name: defaults[name] if name in absent else value for name, value in values.items()}
    inactive = {name for name, rule in INACTIVE.items() if rule.at(found[rule.other])}
    return {name: defaults[name] if name in inactive else value for name, value in found.items()}


def empty_knobs(domains: Mapping[str, tuple[Value, ...]], parts: Parts) -> dict[str, str]:
    """Returns the knobs of a space that have no effect at any values of the others, each with the reason.

    Args:
        domains: For each knob of the space, the values that it can take.
        parts: What the network has.
    """
    if possible(domains, "epochs") == (0,):
        return {name: "epochs is 0: nothing is trained" for name in domains if name != "epochs"}
    absent = parts.without_effect()
    reasons = {
        name: f"{rule.other} is {possible(domains, rule.other)[0]}: {rule.reason}"
        for name, rule in INACTIVE.items()
        if name in domains
        and rule.other not in absent
        and all(rule.at(value) for value in possible(domains, rule.other))
    }
    return reasons | {name: reason for name, reason in absent.items() if name in domains}


def possible(domains: Mapping[str, tuple[Value, ...]], name: str) -> tuple[Any, ...]:
    """Returns the values that a knob can take: its default if not in the space, its bounds if a range."""
    knob = next(knob for knob in KNOBS if knob.name == name)
    values = domains.get(name, (knob.default,))
    return values or (knob.low, knob.high)
