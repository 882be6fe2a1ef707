"""A stage's declaration of one of its knobs: the default and the valid values, and what people choose a method by."""

import inspect
import re
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from spaces.candidate import Value, value_text

Axis = Literal["quantization", "pruning", "distillation", "low-rank", "architecture", "training", "search"]
PLACES = ("post-softmax", "post-GELU", "post-LayerNorm", "residual")
"""What a quantizer of transformers must say what it does with ("Model Quantization and Hardware Acceleration for Vision Transformers:
A Comprehensive Survey", arXiv 2405.00314)."""
_TITLE = re.compile(r'"([^"]{12,200}?)\W?" ?\(?[^()"]{0,40}arXiv (\d{4}\.\d{4,5})')
_NUMBER = re.compile(r"arXiv (\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Technique:
    """What people choose a method by: the axes of surveys of compression.

    Attributes:
        axis: What it changes.
        needs: What it needs besides the network: `data` (examples), `labels`, `training` (gradients through the whole network).
        tuning: How much the network is tuned: `none`; `light`, layer by layer or few parameters; or `full`, all weights.
        general: Whether it keeps what the network can do beyond the task, because no labels of the task shape it.
        paper: Whom it is from; empty if it is common knowledge or our own.
        places: Of a quantizer, what becomes of each of `PLACES`, in their order; empty for others.
        overrides: Overrides that it needs besides its own knob to have an effect.
    """

    axis: Axis
    needs: tuple[str, ...] = ()
    tuning: Literal["none", "light", "full"] = "none"
    general: bool = True
    paper: str = ""
    places: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


WEIGHTS_ALONE = ("as quantize.precision says: it changes weights alone",) * len(PLACES)


def cited(kind: type) -> str:
    """Returns the first paper that a class's docstring, or its module's, names, as `title, arXiv number`; empty if none does."""
    module = sys.modules.get(kind.__module__)
    for text in (kind.__doc__, getattr(module, "__doc__", None)):
        plain = " ".join(inspect.cleandoc(text or "").split())
        if found := _TITLE.search(plain):
            return f"{found[1]}, arXiv {found[2]}"
        if found := _NUMBER.search(plain):
            return f"arXiv {found[1]}"
    return ""


@dataclass(frozen=True)
class KnobSpec:
    """One knob that a stage understands.

    Attributes:
        name: Name within the stage, e.g. `weight_bits`.
        default: Value that is used where the space does not mention the knob.
        description: One line for people.
        allowed: Every valid value; None if `low` and `high`, or the stage's `check`, decide.
        low: Smallest valid number; None for no bound.
        high: Largest valid number; None for no bound.
        words: Valid values besides numbers, e.g. `auto`.
        per_layer: Whether the knob can have one value per layer.
        list_of_globs: Whether a value is a list of glob patterns over layer names.
        shares: Whether a value is a list of numbers from 0 on that sum to 1, or an empty one.
        techniques: Values that stand for a method of its own, each with what people choose it by.
        each_first: Whether a study begins with each of its values, because the costs of one tell nothing of another's.
    """

    name: str
    default: Value
    description: str
    allowed: tuple[Value, ...] | None = None
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    per_layer: bool = False
    list_of_globs: bool = False
    shares: bool = False
    techniques: tuple[tuple[Value, Technique], ...] = ()
    each_first: bool = False

    @property
    def range_text(self) -> str:
        """The valid values in words."""
        if self.allowed is not None:
            return " | ".join(value_text(value) for value in self.allowed)
        if self.list_of_globs:
            return "a list of patterns over layer names"
        if self.shares:
            return "a list of numbers that sum to 1"
        low, high = (None if end is None else f"{end:g}" for end in (self.low, self.high))
        number = f"{low} to {high}" if low and high else f"from {low} on" if low else "any number"
        return " | ".join((*self.words, number))

    def problem(self, value: Value) -> str | None:
        """Returns why `value` is invalid, as the end of a sentence; None if it is valid."""
        if self.allowed is not None:
            known = any(value == a and type(value) is type(a) for a in self.allowed)
            return None if known else f"must be one of {list(self.allowed)}, not {value!r}"
        if self.list_of_globs:
            good = isinstance(value, tuple) and all(isinstance(v, str) for v in value)
            return None if good else f"must be a list of layer patterns, not {value!r}"
        if self.shares:
            return (
                None
                if _are_shares(value)
                else f"must be a list of numbers from 0 on that sum to 1, not {value!r}"
            )
        if value in self.words:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"must be {' or '.join((*self.words, 'a number'))}, not {value!r}"
        if isinstance(self.default, int) and not isinstance(value, int):
            return f"must be a whole number, not {value!r}"
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return f"must lie between {self.low} and {self.high}, not {value!r}"
        return None


def _are_shares(value: Value) -> bool:
    if not isinstance(value, tuple):
        return False
    numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool) and v >= 0]
    return len(numbers) == len(value) and (not value or abs(sum(numbers) - 1) < 1e-6)


class HasKnobs(Protocol):
    """An object that declares knobs under a name, such as a stage.

    Attributes:
        name: First part of the knobs' paths.
        knobs: The declared knobs.
    """

    name: ClassVar[str]
    knobs: tuple[KnobSpec, ...]
