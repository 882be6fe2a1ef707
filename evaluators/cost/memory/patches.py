"""Patch-based inference of the first kernels (Lin et al. 2021, "MCUNetV2", arXiv 2110.15352, section 3.1).

The first stage runs once per patch of its output and keeps only tiles of its intermediate tensors; its whole
output is in memory from the start. Overlapping parts of tiles (halos) are recomputed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from evaluators.cost.graph import OpGraph
from evaluators.cost.memory.liveness import Problem, aligned, moments
from evaluators.cost.memory.tiles import Size, Tiles, spatial_prefix, tiles
from evaluators.devices.device import Deployment


@dataclass(frozen=True)
class PatchStage:
    """The kernels that run patch by patch.

    Attributes:
        patches: Number of splits in each direction.
        kernels: Names of the kernels.
        output: Name of the tensor that the patches fill.
        work: Per kernel, its total computation in all patches relative to one whole run; below 1 only if
            parts of its output are not read.
        extra_macs: Multiply-accumulates that are recomputed.
    """

    patches: int
    kernels: tuple[str, ...]
    output: str
    work: tuple[float, ...]
    extra_macs: int


@dataclass(frozen=True)
class Patched:
    """A memory planning problem whose first kernels work on tiles.

    Attributes:
        problem: The problem; tensors of the stage have the sizes of their largest tiles, and one more tensor
            is the tile of the stage's output.
        tensors: Names of its tensors by position.
        stage: The patch-based stage.
    """

    problem: Problem
    tensors: tuple[str, ...]
    stage: PatchStage


def best_stage(
    problem: Problem, graph: OpGraph, tensors: Sequence[str], order: Sequence[int], deployment: Deployment
) -> Patched | None:
    """Returns the patch-based stage with the smallest peak; of several the one that recomputes least.

    Input images are assumed to arrive tile by tile, as in the paper (from a camera or a compressed file); an
    image that is in memory as a whole has to be added.

    Returns:
        None if running the network without patches takes no more memory.
    """
    live_bytes = [m.n_bytes for m in moments(problem, order)]
    rest = [0] * (len(order) + 1)
    for place in reversed(range(len(order))):
        rest[place] = max(live_bytes[place], rest[place + 1])
    best, best_key = None, (rest[0], 0)
    n_spatial, sizes = spatial_prefix(graph, order)
    for end, output in _ends(problem, order, n_spatial):
        if problem.sizes[output] >= best_key[0] or rest[end] > best_key[0]:
            continue
        patched = _patched(problem, graph, tensors, order[:end], output, sizes, deployment)
        peak = max(m.n_bytes for m in islice(moments(patched.problem, order), end))
        key = (max(peak, rest[end]), patched.stage.extra_macs)
        if key < best_key:
            best, best_key = patched, key
    return best


def _ends(problem: Problem, order: Sequence[int], n_spatial: int) -> Iterator[tuple[int, int]]:
    """Yields (length, output) of prefixes after which only an output that they do not read is live."""
    written: set[int] = set()
    read: set[int] = set()
    lives = [m.before for m in moments(problem, order)] + [tuple(problem.kept)]
    for end in range(1, n_spatial + 1):
        written.update(problem.writes[order[end - 1]])
        read.update(problem.reads[order[end - 1]])
        if len(lives[end]) == 1 and lives[end][0] in written - read:
            yield end, lives[end][0]


def _patched(
    problem: Problem,
    graph: OpGraph,
    tensors: Sequence[str],
    stage: Sequence[int],
    output: int,
    sizes: Mapping[str, Size],
    deployment: Deployment,
) -> Patched:
    kernels = [graph.kernels[k] for k in stage]
    split = tiles(kernels, tensors[output], sizes, deployment.patches)
    new_sizes = [_tile(problem, tensors, t, split, deployment) for t in range(len(tensors))]
    tile = len(tensors)
    new_sizes.append(new_sizes[output])
    new_sizes[output] = problem.sizes[output]
    writes, scratch = list(problem.writes), list(problem.scratch)
    for k in stage:
        writes[k] = tuple(tile if t == output else t for t in writes[k])
        kept = scratch[k]
        if kept:
            whole, part = (sum(s[t] for t in problem.reads[k]) for s in (problem.sizes, new_sizes))
            scratch[k] = aligned(math.ceil(kept * part / whole), deployment.alignment_bytes)
    extra = sum(k.macs * (work - 1) for k, work in zip(kernels, split.work, strict=True))
    return Patched(
        replace(
            problem,
            writes=tuple(writes),
            sizes=tuple(new_sizes),
            readers=(*problem.readers, 0),
            given=(*problem.given, output),
            scratch=tuple(scratch),
        ),
        (*tensors, f"{tensors[output]} (patch)"),
        PatchStage(
            deployment.patches, tuple(k.name for k in kernels), tensors[output], split.work, round(extra)
        ),
    )


def _tile(problem: Problem, tensors: Sequence[str], tensor: int, split: Tiles, deployment: Deployment) -> int:
    share = split.share.get(tensors[tensor], 1.0)
    return aligned(math.ceil(problem.sizes[tensor] * share), deployment.alignment_bytes)
