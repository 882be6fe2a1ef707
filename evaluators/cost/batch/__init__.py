"""Costs of very many candidates that share a graph and differ in bit widths only."""

from evaluators.cost.batch.skeleton import Skeleton

__all__ = ["Skeleton"]
