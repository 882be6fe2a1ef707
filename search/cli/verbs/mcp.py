"""`paredown mcp`: the same as `paredown-mcp`."""

from collections.abc import Sequence

from search.agents.server import run as serve


def run(arguments: Sequence[str]) -> int:
    """Serves Paredown to agents; returns the exit status."""
    return serve(arguments, "paredown mcp")
