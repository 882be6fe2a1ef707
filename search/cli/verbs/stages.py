"""The stages that a study can run, made from their configs alone: without a task, a model or a study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from search.planning.config.group_files import GroupFile, files_of
from search.planning.config.instantiate import instantiate
from spaces.errors import ParedownError
from spaces.pruning.criteria.criterion import Criterion
from spaces.stages.stage import Stage


@dataclass(frozen=True)
class FoundStage:
    """A stage, and how it was found.

    Attributes:
        stage: The stage.
        file: Its config.
        model: The model whose family gives it its knobs; None if they are its own.
    """

    stage: Stage
    file: GroupFile
    model: GroupFile | None = None


def stages_in(
    folders: Sequence[Path], trusted: Sequence[str], names: Sequence[str] = ()
) -> Iterator[FoundStage]:
    """Yields the stages; one whose knobs are a family's once for each model with a family.

    Args:
        folders: Where configs are.
        trusted: Packages that the user trusts; stages of others are left out.
        names: Those to yield, by the name of the stage or of its file; empty for all.
    """
    criteria = dict(_criteria(folders, trusted))
    families = [model for model in files_of("model", folders).values() if "family" in model.content()]
    for name, file in files_of("stage", folders).items():
        for section_name, section in file.content().items():
            if names and not {name, section_name} & set(names):
                continue
            for model in families if "${model.family}" in str(section) else [None]:
                stage = _stage(section, section_name, model, trusted, criteria)
                if stage is not None:
                    yield FoundStage(stage, file, model)


def _criteria(folders: Sequence[Path], trusted: Sequence[str]) -> Iterator[tuple[str, Criterion]]:
    """Yields the pruning criteria that configs add to the built-in ones."""
    for file in files_of("criterion", folders).values():
        for name, section in file.content().items():
            try:
                yield name, instantiate(section, f"criterion.{name}", trusted, [Criterion])
            except ParedownError:  # not trusted, or no criterion: choosing it says so
                continue


def _stage(
    section: Any,
    name: str,
    model: GroupFile | None,
    trusted: Sequence[str],
    criteria: Mapping[str, Criterion],
) -> Stage | None:
    chosen = {} if model is None else model.content()
    for constant in ("n_classes", "values"):
        if isinstance(chosen.get(constant), str):  # an interpolation, e.g. of the task's
            chosen[constant] = 1 if constant == "n_classes" else None
    whole = OmegaConf.create({"stage": section, "model": {"n_classes": 1, **chosen}})
    try:
        resolved = OmegaConf.to_container(OmegaConf.select(whole, "stage"), resolve=True)
        stage: Stage = instantiate(resolved, f"stage.{name}", trusted, [Stage], criteria=criteria)
    except (ParedownError, OmegaConfBaseException, ValueError):  # as above
        return None
    return stage
