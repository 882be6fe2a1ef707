"""Every clipping method, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from spaces.quantization import clip_kl, clip_max, clip_mse, clip_percentile
from spaces.quantization.clipping import Clipping

_ROWS = (clip_max.CLIPPING, clip_kl.CLIPPING, clip_percentile.CLIPPING, clip_mse.CLIPPING)


def clippings() -> Mapping[str, Clipping]:
    """Returns every clipping method by name."""
    return MappingProxyType({row.name: row for row in _ROWS})
