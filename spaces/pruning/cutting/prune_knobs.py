"""The knobs of the prune stage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from spaces.candidate import StageValue, Value
from spaces.errors import StageError, unknown_name
from spaces.knob_spec import KnobSpec, Technique
from spaces.pruning.criteria.registry import BUILT_IN

MACS, WEIGHT_BYTES, LATENCY_MS = "macs", "weight_bytes", "latency_ms"
WHOLE, CUT = "whole", "cut"

KNOBS = (
    KnobSpec("criterion", "magnitude_l2", "which channels go first", allowed=tuple(BUILT_IN)),
    KnobSpec(
        "ratio",
        0.0,
        "share of a layer's output channels that go; layers whose channels are coupled lose the smallest of their shares",
        low=0.0,
        high=0.99,
        per_layer=True,
    ),
    KnobSpec(
        "keep",
        1.0,
        "share of the dense network's cost that may be left; what goes is chosen over all layers",
        low=0.01,
        high=1.0,
    ),
    KnobSpec(
        "budget_of", MACS, "the cost that `keep` is a share of", allowed=(MACS, WEIGHT_BYTES, LATENCY_MS)
    ),
    KnobSpec(
        "round_to",
        1,
        "a layer that is cut keeps a multiple of so many output channels: what the device's kernels like",
        low=1,
        high=1024,
    ),
    KnobSpec(
        "protect", (), "layers whose channels all stay, as patterns over their names", list_of_globs=True
    ),
    KnobSpec(
        "residuals",
        WHOLE,
        "channels that shortcuts add to, under a budget: whole leaves them if that leaves enough of the others, cut does not",
        allowed=(WHOLE, CUT),
    ),
    KnobSpec(
        "drop_blocks",
        0,
        "whole blocks that go, before any channels",
        low=0,
        high=1000,
        techniques=((1, Technique("pruning", ("data",))),),
    ),
    KnobSpec(
        "mask_tuning",
        False,
        "scale what is left of a layer's inputs so that its output comes nearest to what it was; mostly better with "
        "reestimate_batch_norm=false, since the two correct the same error",
        allowed=(False, True),
        techniques=(
            (True, Technique("pruning", ("data",), "light", overrides=("+space.prune.ratio=[0.25]",))),
        ),
    ),
    KnobSpec(
        "reestimate_batch_norm",
        True,
        "take the statistics of BatchNorms anew from examples after the cut",
        allowed=(False, True),
    ),
)
DEFAULTS: Mapping[str, Value] = {knob.name: knob.default for knob in KNOBS}

# Knobs that say how channels are cut: without effect where none is.
OF_CHANNELS = ("criterion", "budget_of", "round_to", "residuals", "mask_tuning")


def knobs_with(criteria: Iterable[str], knobs: Sequence[KnobSpec] = KNOBS) -> tuple[KnobSpec, ...]:
    """Returns the knobs with these names as what `criterion` admits."""
    return tuple(replace(k, allowed=tuple(criteria)) if k.name == "criterion" else k for k in knobs)


def check_values(values: Mapping[str, StageValue], knobs: Sequence[KnobSpec] = KNOBS) -> None:
    """Checks that every value is in its knob's domain.

    Args:
        values: A value for every knob.
        knobs: The knobs.

    Raises:
        StageError: One is not.
    """
    for name in values:
        if name not in DEFAULTS:
            raise StageError(unknown_name("knob", name, DEFAULTS, "prune"))
    for knob in knobs:
        value = values[knob.name]
        if isinstance(value, dict):
            problems = [knob.problem(v) for v in value.values()] if knob.per_layer else ["takes one value"]
        else:
            problems = [knob.problem(value)]
        if problem := next((p for p in problems if p), None):
            raise StageError(f"prune.{knob.name} {problem}")


def cuts_channels(values: Mapping[str, StageValue]) -> bool:
    """Whether the values ask for channels to be cut."""
    ratio, keep = values["ratio"], values["keep"]
    ratios = ratio.values() if isinstance(ratio, dict) else (ratio,)
    return any(isinstance(r, float | int) and r > 0 for r in ratios) or keep != 1.0
