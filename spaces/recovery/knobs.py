"""The knobs of the recover stage, and which of them have no effect at which values of the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.knob_spec import WEIGHTS_ALONE, KnobSpec, Technique

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

_EPOCH = ("+space.recover.epochs=[1]",)
_TUNED = Technique("training", ("data", "labels", "training"), "full", general=False)
_DISTILLED = Technique("distillation", ("data", "training"), "full", overrides=_EPOCH)
_LORA = Technique(
    "low-rank", ("data", "labels", "training"), "light", False, "LoRA, arXiv 2106.09685", overrides=_EPOCH
)
_MERGED = replace(
    _LORA, paper="Octo-planner, arXiv 2406.18082", overrides=(*_EPOCH, "+space.recover.lora_rank=[4]")
)
_MIXTURE = (
    "stage=[recover,export]",
    "space=experts",
    "model=moe",
    "model.checkpoint=FILE.bin",
    "task=text",
    "task.root=FOLDER",
    "task.data.tokenizer=FILE",
)

KNOBS = (
    KnobSpec(
        "epochs",
        0,
        "passes over the train split; 0 leaves the network as it is",
        low=0,
        high=1000,
        techniques=((1, _TUNED),),
    ),
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
    KnobSpec("batch_size", 64, "examples per step; 1 only without BatchNorm", low=1, high=4096),
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
        techniques=(
            (
                1.0,
                replace(_DISTILLED, paper="Distilling the Knowledge in a Neural Network, arXiv 1503.02531"),
            ),
        ),
    ),
    KnobSpec("temperature", 4.0, "softmax temperature of the logits in distillation", low=1.0, high=20.0),
    KnobSpec(
        "cwd_weight",
        30.0,
        "weight of channel-wise distillation of features",
        low=0.0,
        high=100.0,
        techniques=(
            (30.0, replace(_DISTILLED, paper="Channel-wise Knowledge Distillation, arXiv 2011.13256")),
        ),
    ),
    KnobSpec("cwd_temperature", 1.0, "temperature of channel-wise distillation", low=0.5, high=20.0),
    KnobSpec(
        "block_weights",
        "none",
        "learning-rate factors by block: smaller for sensitive blocks, or 0 before the first cut",
        BLOCK_WEIGHTS,
    ),
    KnobSpec(
        "average_decay",
        0.0,
        "decay of the moving average of the weights, which is kept in the end; 0 keeps the last weights",
        low=0.0,
        high=0.9999,
    ),
    KnobSpec(
        "lora_rank",
        0,
        "rank of LoRA updates of linear layers; 0 trains all weights",
        low=0,
        high=1024,
        techniques=((4, _LORA),),
    ),
    KnobSpec(
        "adapters",
        1,
        "LoRA adapters, each trained on the examples of its own classes or its own run of examples, and merged",
        low=1,
        high=16,
        techniques=((2, _MERGED),),
    ),
    KnobSpec(
        "merge_weights",
        (),
        "weights of the adapters in the merged network, which sum to 1; an empty list for equal ones",
        shares=True,
    ),
    KnobSpec(
        "tune",
        "all",
        "parameters that are trained: all or only biases",
        TUNED,
        techniques=(("bias", replace(_TUNED, tuning="light", overrides=_EPOCH)),),
    ),
    KnobSpec(
        "stored_activation_bits",
        32,
        "bits in which activations are kept for the backward pass; 32 keeps them as they are",
        STORED_BITS,
        techniques=((4, replace(_TUNED, paper="S2A", overrides=_EPOCH)),),
    ),
    KnobSpec(
        "experts",
        "float",
        "weights of routed experts: ternary ones are -g, 0 or g",
        EXPERTS,
        techniques=(
            (
                "ternary",
                Technique(
                    "quantization",
                    ("data", "labels", "training"),
                    "full",
                    False,
                    "MoTE, arXiv 2506.14435",
                    WEIGHTS_ALONE,
                    _MIXTURE,
                ),
            ),
        ),
    ),
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


INACTIVE = {  # a knob comes after the one that decides about it
    "lora_rank": Inactive("experts", lambda v: v == "ternary", "ternary experts train their own weights"),
    "adapters": Inactive("lora_rank", lambda v: v == 0, "without LoRA there are no adapters"),
    "merge_weights": Inactive("adapters", lambda v: v == 1, "one adapter is merged as it is"),
    "temperature": Inactive("distillation_weight", lambda v: v == 0, "nothing is distilled from logits"),
    "label_smoothing": Inactive("distillation_weight", lambda v: v == 1, "labels are not used"),
    "cwd_temperature": Inactive("cwd_weight", lambda v: v == 0, "nothing is distilled from features"),
    "block_weights": Inactive("lora_rank", lambda v: v > 0, "LoRA does not train the blocks' own weights"),
    "tune": Inactive("lora_rank", lambda v: v > 0, "LoRA trains low-rank updates alone"),
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


def canonical(
    values: Mapping[str, StageValue], parts: Parts, knobs: Sequence[KnobSpec] = KNOBS
) -> dict[str, StageValue]:
    """Returns the values, with the default for knobs that have no effect at these values.

    Args:
        values: A value for every knob.
        parts: What the network has.
        knobs: The stage's knobs.

    Raises:
        StageError: There is not a merge weight for each adapter.
    """
    defaults: dict[str, StageValue] = {knob.name: knob.default for knob in knobs}
    if values["epochs"] == 0:
        return defaults | {"epochs": 0}
    absent = parts.without_effect()
    found = {name: defaults[name] if name in absent else value for name, value in values.items()}
    for name, rule in INACTIVE.items():
        if rule.other in found and name in found and rule.at(found[rule.other]):
            found[name] = defaults[name]
    if "merge_weights" not in found:
        return found
    weights = cast(tuple[float, ...], found["merge_weights"])
    check_weights((cast(int, found["adapters"]),), (weights,))
    return {**found, "merge_weights": () if len(set(weights)) == 1 else weights}


def check_weights(adapters: Sequence[int], weights: Sequence[tuple[float, ...]]) -> None:
    """Checks that some merge weights have the length of some number of adapters; none at all fit every number.

    Raises:
        StageError: None has.
    """
    lengths = {len(each) for each in weights}
    if not lengths & {0, *adapters}:
        raise StageError(
            f"recover.merge_weights must have a weight for each of recover.adapters={', '.join(map(str, adapters))}, but has "
            f"{', '.join(map(str, sorted(lengths)))}"
        )


def empty_knobs(
    domains: Mapping[str, tuple[Value, ...]], parts: Parts, knobs: Sequence[KnobSpec] = KNOBS
) -> dict[str, str]:
    """Returns the knobs of a space that have no effect at any values of the others, each with the reason.

    Args:
        domains: For each knob of the space, the values that it can take.
        parts: What the network has.
        knobs: The stage's knobs.
    """
    known = {knob.name for knob in knobs}
    if possible(domains, "epochs", knobs) == (0,):
        return {name: "epochs is 0: nothing is trained" for name in domains if name != "epochs"}
    absent = parts.without_effect()
    reasons = {
        name: f"{rule.other} is {possible(domains, rule.other, knobs)[0]}: {rule.reason}"
        for name, rule in INACTIVE.items()
        if name in domains
        and rule.other in known
        and rule.other not in absent
        and all(rule.at(value) for value in possible(domains, rule.other, knobs))
    }
    return reasons | {name: reason for name, reason in absent.items() if name in domains}


def possible(
    domains: Mapping[str, tuple[Value, ...]], name: str, knobs: Sequence[KnobSpec] = KNOBS
) -> tuple[Any, ...]:
    """Returns the values that a knob can take: its default if not in the space, its bounds if a range."""
    knob = next(knob for knob in knobs if knob.name == name)
    values = domains.get(name, (knob.default,))
    return values or (knob.low, knob.high)
