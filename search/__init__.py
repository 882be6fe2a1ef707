"""Paredown: which compressed version of this network should I ship to that device?"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.api import Study, compose, quantize, run
    from search.results import Results

__all__ = ["Results", "Study", "compose", "quantize", "run"]


def __getattr__(name: str) -> object:
    # lazy: `import search` must stay cheap, and must not pull in torch, ray or mlflow
    if name in ("Study", "compose", "quantize", "run"):
        from search import api

        return getattr(api, name)
    if name == "Results":
        from search.results import Results

        return Results
    raise AttributeError(f"module 'search' has no attribute {name!r}")
