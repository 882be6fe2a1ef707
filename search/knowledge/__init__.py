"""Finished studies, read back: knowledge for the next one, and a catalogue of all their networks."""

from search.knowledge.catalogue import networks, rank_correlations, results

__all__ = ["networks", "rank_correlations", "results"]
