"""The knobs of the sparsify stage, and which of them have no effect at which values of the others."""

from collections.abc import Mapping
from typing import Any

from spaces.candidate import StageValue, Value
from spaces.knob_spec import KnobSpec, Technique
from spaces.recovery.knobs import AUGMENTATIONS

METHODS = ("none", "bn_gamma", "group_envelope", "bottleneck")
WITH_LEVEL = ("group_envelope", "bottleneck")
SCHEDULES = ("constant", "linear_decay")

_PAPERS = {
    "bn_gamma": "Learning Efficient Convolutional Networks through Network Slimming, arXiv 1708.06519",
    "group_envelope": "WGSEF",
    "bottleneck": "VTrans, arXiv 2406.05276",
}
_CUT = (
    "stage=[sparsify,prune,export,quantize]",
    "+space.prune.ratio=[0.25]",
)  # what takes the channels that have faded

KNOBS = (
    KnobSpec(
        "method",
        "none",
        "how channels are made sparse; none leaves the network as it is",
        METHODS,
        techniques=tuple(
            (
                name,
                Technique(
                    "pruning",
                    ("data", "labels", "training"),
                    "full",
                    general=False,
                    paper=paper,
                    overrides=_CUT,
                ),
            )
            for name, paper in _PAPERS.items()
        ),
    ),
    KnobSpec("strength", 0.01, "weight of the regularizer", low=1e-6, high=10.0),
    KnobSpec(
        "strength_schedule", "constant", "schedule of the strength; linear_decay ends at a tenth", SCHEDULES
    ),
    KnobSpec("level", 0.5, "share of MACs that may remain; bn_gamma ignores it", low=0.01, high=1.0),
    KnobSpec("epochs", 2, "passes over the train split; 0 leaves the network as it is", low=0, high=1000),
    KnobSpec("learning_rate", 0.02, "peak learning rate of the one-cycle schedule", low=1e-6, high=1.0),
    KnobSpec("batch_size", 128, "examples per step", low=2, high=4096),
    KnobSpec("augmentation", "none", "random changes of the inputs, as in recover", AUGMENTATIONS),
)


def is_off(values: Mapping[str, StageValue]) -> bool:
    """Whether nothing is trained."""
    return values["method"] == "none" or values["epochs"] == 0


def canonical(values: Mapping[str, StageValue]) -> dict[str, StageValue]:
    """Returns the values, with the default for knobs that have no effect at these values.

    Args:
        values: A value for every knob.
    """
    defaults: dict[str, StageValue] = {knob.name: knob.default for knob in KNOBS}
    if is_off(values):
        return defaults
    ignored = {} if values["method"] in WITH_LEVEL else {"level": defaults["level"]}
    return dict(values) | ignored


def empty_knobs(domains: Mapping[str, tuple[Value, ...]]) -> dict[str, str]:
    """Returns the knobs of a space that have no effect at any values of the others, each with the reason."""
    methods = possible(domains, "method")
    for name, nothing in (("method", "none"), ("epochs", 0)):
        if possible(domains, name) == (nothing,):
            return {knob: f"{name} is {nothing}: nothing is trained" for knob in domains if knob != name}
    if "level" in domains and not set(methods) & set(WITH_LEVEL):
        return {"level": f"method is {' or '.join(map(str, methods))}, which keeps to no budget"}
    return {}


def possible(domains: Mapping[str, tuple[Value, ...]], name: str) -> tuple[Any, ...]:
    """Returns the values that a knob can take: its default if not in the space, its bounds if a range."""
    knob = next(knob for knob in KNOBS if knob.name == name)
    values = domains.get(name, (knob.default,))
    return values or (knob.low, knob.high)
