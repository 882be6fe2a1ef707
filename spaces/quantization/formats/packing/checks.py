"""Checks of the options of formats, and of the weights that they get."""

import numpy as np

from spaces.errors import ConfigError, StageError
from spaces.quantization.formats.packing.groups import Group, Weight

FLOATS = ("float16", "float32")


def check_finite(weight: Weight, name: str) -> None:
    """Raises StageError if a weight is not finite."""
    n_bad = int(np.count_nonzero(~np.isfinite(weight)))
    if n_bad:
        raise StageError(f"weight_format={name}: {n_bad} of {weight.size} weights are not finite")


def check_option(name: str, value: object, allowed: object, ok: bool) -> None:
    """Raises ConfigError unless an option's value is allowed; `allowed` says which are."""
    if not ok:
        raise ConfigError(f"{name} must be {allowed}, but is {value!r}")


def check_group(name: str, group: Group) -> None:
    """Raises ConfigError if a group is none of `Group`."""
    ok = group in ("tensor", "channel") if isinstance(group, str) else group >= 1
    check_option(name, group, "tensor, channel, or a number of inputs of at least 1", ok)
