"""Checks that stages follow one another, get the model's kind of network, and are those whose knobs the space sets."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from search.planning.config.instantiate import factory_of
from search.planning.config.schema import Config
from search.planning.config.shipped import shipped
from spaces.errors import ConfigError, ParedownError, SpaceError, unknown_name
from spaces.models.base import ModelSource
from spaces.stages.artifact import Kind
from spaces.stages.stage import Stage

_NETWORK: Mapping[Kind, str] = {"torch": "a torch network", "onnx": "an ONNX file"}
_COMMAND = re.compile(r"^# (paredown .*)$", re.MULTILINE)


def check_stages(config: Config, stages: Sequence[Stage]) -> None:
    """Checks the sections `stage` and `space` against each other and against the model, before anything is loaded.

    Raises:
        ConfigError: A stage gets a kind of network that it does not take; the message has the order that would be right.
        SpaceError: The space sets knobs of a stage that is not run; the message has the command that runs it.
    """
    given = _model_kind(config)
    _check_space(config, stages, given)
    kind, maker = given, f"model={config.choices.get('model')}"
    for stage in stages:
        if kind is not None and kind not in stage.consumes:
            raise ConfigError(_misplaced(stage, stages, kind, maker, given))
        kind, maker = stage.produces, f"`{stage.name}`, before it,"


def _model_kind(config: Config) -> Kind | None:
    """Returns the kind of network that the model's class loads; None if it is known only when it is loaded."""
    source: type[ModelSource] = factory_of(config.section("model"), "model", config.trusted, [ModelSource])
    return source.kind


def _misplaced(stage: Stage, stages: Sequence[Stage], kind: Kind, maker: str, model: Kind | None) -> str:
    takes = " or ".join(_NETWORK[wanted] for wanted in stage.consumes)
    head = f"{_listed(stages)}: `{stage.name}` takes {takes}, but {maker} gives {_NETWORK[kind]}. "
    if model not in (None, "torch") and "torch" in stage.consumes:
        return head + _needs_torch(stage.name, [s for s in stages if s.consumes != ("torch",)])
    if any(s.produces == "onnx" and "torch" in s.consumes for s in stages):
        ordered = sorted(stages, key=_rank)
        return f"{head}Order them so: {_listed(ordered)}"
    return f"{head}Put `export` before it, e.g. stage=[{','.join(_with_export(stages))}]"


def _rank(stage: Stage) -> int:
    """Returns where a stage belongs: those between torch networks come first, those between ONNX files last."""
    return 0 if stage.produces == "torch" else 1 if "torch" in stage.consumes else 2


def _with_export(stages: Sequence[Stage]) -> list[str]:
    torch = [stage.name for stage in stages if stage.produces == "torch"]
    return [*torch, "export", *(stage.name for stage in stages if stage.name not in torch)]


def _needs_torch(name: str, others: Sequence[Stage]) -> str:
    """Returns what to do about a stage that an ONNX file cannot enter."""
    left = f"or leave `{name}` out: {_listed(others)}" if others else f"or leave `{name}` out"
    return f"Choose a torch model (model=torch model.cls=PACKAGE.CLASS model.checkpoint=FILE.pt, or one of the zoo), {left}"


def _listed(stages: Sequence[Stage]) -> str:
    return f"stage=[{','.join(stage.name for stage in stages)}]"


def _check_space(config: Config, stages: Sequence[Stage], model: Kind | None) -> None:
    names = [stage.name for stage in stages]
    for name, knobs in config.section("space").items():
        if name == "constraints":
            continue
        if name not in names:
            raise SpaceError(_not_run(str(name), config, stages, model))
        if not isinstance(knobs, Mapping):
            raise SpaceError(
                f"space.{name} must map knobs to values, e.g. {{KNOB: [VALUE, VALUE]}}, not {knobs!r}; `paredown knobs {name}` lists them"
            )


def _not_run(name: str, config: Config, stages: Sequence[Stage], model: Kind | None) -> str:
    """Returns the message for knobs of a stage that the study does not run."""
    file = shipped() / "stage" / f"{name}.yaml"
    if not file.is_file():
        known = [*(stage.name for stage in stages), *(path.stem for path in file.parent.glob("*.yaml"))]
        return unknown_name("stage", name, set(known), f"space.{name}")
    head = (
        f"space.{name} sets knobs of the stage '{name}', which this study does not run: {_listed(stages)}. "
    )
    consumes = _consumed(name, file, config)
    if model == "onnx" and "onnx" not in consumes:
        return f"{head}It takes a torch network, but model={config.choices.get('model')} gives an ONNX file. {_needs_torch(name, ())}, e.g. space=quantize"
    space = shipped() / "space" / f"{config.choices.get('space')}.yaml"
    command = _COMMAND.search(space.read_text()) if space.is_file() else None
    if command and f"{name}" in command[1].partition("space=")[0]:
        return f"{head}Run it so: {command[1]}"
    return f"{head}Run it so: stage=[{','.join(_with(name, consumes, stages))}]"


def _with(name: str, consumes: Sequence[Kind], stages: Sequence[Stage]) -> list[str]:
    names = [stage.name for stage in stages]
    return [name, *names] if "torch" in consumes else [*names, name]


def _consumed(name: str, file: Path, config: Config) -> Sequence[Kind]:
    try:
        kind = factory_of(yaml.safe_load(file.read_text())[name], f"stage.{name}", config.trusted, [Stage])
    except ParedownError:
        return ("torch", "onnx")
    consumed: Sequence[Kind] = kind.consumes
    return consumed
