"""The formats by name, each with the options that knobs do not set."""

from collections.abc import Mapping
from types import MappingProxyType

from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.codes import Codes
from spaces.quantization.formats.fixed_point import FixedPoint
from spaces.quantization.formats.gwq import Gwq
from spaces.quantization.formats.shift_add import ShiftAdd
from spaces.quantization.formats.ternary import Ternary
from spaces.quantization.formats.uniform import Uniform

FORMATS: Mapping[str, WeightFormat] = MappingProxyType(
    {form.name: form for form in (Uniform(), Gwq(), Ternary(), ShiftAdd(), FixedPoint(), Codes())}
)
