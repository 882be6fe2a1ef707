"""Every clipping method, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from spaces.quantization.calibration.clipping import kl as clip_kl
from spaces.quantization.calibration.clipping import maximum as clip_max
from spaces.quantization.calibration.clipping import mse as clip_mse
from spaces.quantization.calibration.clipping import percentile as clip_percentile
from spaces.quantization.calibration.clipping.base import Clipping

_ROWS = (clip_max.CLIPPING, clip_kl.CLIPPING, clip_percentile.CLIPPING, clip_mse.CLIPPING)


def clippings() -> Mapping[str, Clipping]:
    """Returns every clipping method by name."""
    return MappingProxyType({row.name: row for row in _ROWS})
