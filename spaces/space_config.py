"""Reads a space from its config.

::

    space:
      quantize:                                   # a stage
        scheme: [asymmetric, symmetric]           # short for {choices: [...]}
        granularity: channel                      # fixed
        clipping: {choices: [max, kl, percentile]}
        percentile: {float: [99.0, 99.999], when: {clipping: percentile}}
        calibration_images: {int: [16, 1024], log: true}
        weight_bits:                              # one value per group of layers; the first match wins
          choices: [4, 8]
          groups:
            - {name: stem, match: "conv1*", choices: [8]}
            - {name: rest, match: "*"}
        activation_bits: {choices: [8, 16], per: layer}
      recover:
        merge_weights: {simplex: 2, step: 0.1}    # lists of 2 weights that sum to 1
      constraints:
        integer_ops_are_8_bit: quantize.format != 'qoperator' or quantize.granularity == 'tensor'
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from spaces.candidate import Value, freeze
from spaces.constraints import Constraint
from spaces.errors import SpaceError, unknown_name, yaml_word
from spaces.knob_spec import HasKnobs, KnobSpec
from spaces.knobs import Choices, Condition, Domain, Knob, Range
from spaces.simplex import simplex
from spaces.space import Space

_DOMAIN_KEYS = ("choices", "int", "float", "value", "simplex")
KNOB_KEYS = (*_DOMAIN_KEYS, "step", "log", "ordered", "when", "groups", "per")

_ANY_LAYER = "*"  # placeholder for layer names before the model is loaded


def read_space(
    config: Mapping[str, Any],
    stages: Sequence[HasKnobs] | None = None,
    layers: Sequence[str] | None = None,
) -> Space:
    """Returns the space that `config` declares.

    Args:
        config: The `space` section, as plain dicts and lists.
        stages: The pipeline's stages: every knob must be one of theirs. None accepts any path.
        layers: Names of the model's layers, for per-layer knobs. None leaves groups unresolved: a knob with
            `per: layer` is read as a single knob, and constraints are then left out of the space.

    Raises:
        SpaceError: Something in the section is wrong; the message names the config path.
    """
    constraints = config.get("constraints") or {}
    if not isinstance(constraints, Mapping):
        raise SpaceError(f"space.constraints must map names to expressions, not {constraints!r}")
    body = {key: value for key, value in config.items() if key != "constraints"}
    knobs = [k for path, node in _leaves(body, "") for k in _knobs(path, node, layers)]
    if stages is not None:
        _check_against_stages(knobs, stages)
    found = [Constraint(str(name), str(text)) for name, text in constraints.items() if text is not None]
    unresolved = layers is None and any(knob.layers == (_ANY_LAYER,) for knob in knobs)
    return Space(knobs, () if unresolved else found)  # e.g. a sum over all layers cannot be computed yet


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and not any(k in value for k in _DOMAIN_KEYS):
            if not value:
                raise SpaceError(f"space.{path} is empty: give it a value, a list of choices, int or float")
            if "groups" in value and all(isinstance(g, Mapping) for g in value["groups"] or [None]):
                yield path, value
            else:
                yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _knobs(path: str, node: Any, layers: Sequence[str] | None) -> list[Knob]:
    if not isinstance(node, Mapping):
        return [
            Knob(
                path, _domain(path, {"choices": node} if isinstance(node, list | tuple) else {"value": node})
            )
        ]
    unknown = [key for key in node if key not in KNOB_KEYS]
    if unknown:
        raise SpaceError(unknown_name("key", unknown[0], KNOB_KEYS, f"space.{path}"))
    when = _conditions(path, node.get("when") or {})
    groups = _groups(path, node, layers)
    if groups is None:
        return [Knob(path, _domain(path, node), when)]
    return [Knob(f"{path}[{name}]", domain, when, members) for name, domain, members in groups]


def _domain(path: str, node: Mapping[str, Any]) -> Domain:
    kinds = [key for key in _DOMAIN_KEYS if key in node]
    if len(kinds) != 1:
        raise SpaceError(
            f"space.{path} must have exactly one of {', '.join(_DOMAIN_KEYS)}, but has {kinds or 'none'}; "
            f"space.{path}=[...] replaces all of them by a list of values"
        )
    kind, given = kinds[0], node[kinds[0]]
    try:
        if kind == "value":
            return Choices((freeze(given),))
        if kind == "simplex":
            return Choices(simplex(given, node.get("step", 0.1)))
        if kind == "choices":
            return Choices(_choices(given), bool(node.get("ordered", False)))
        return _range(kind, given, node)
    except (SpaceError, TypeError) as error:
        raise SpaceError(f"space.{path}: {error}") from error


def _choices(given: Any) -> tuple[Value, ...]:
    if not isinstance(given, list | tuple):
        raise SpaceError(f"`choices` must be a list, not {given!r}")
    return tuple(freeze(v) for v in given)


def _range(kind: str, given: Any, node: Mapping[str, Any]) -> Range:
    numbers = given if isinstance(given, list | tuple) else ()
    wanted: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    if len(numbers) != 2 or not all(isinstance(n, wanted) and not isinstance(n, bool) for n in numbers):
        raise SpaceError(f"`{kind}` must be [low, high] with two {kind} numbers, not {given!r}")
    step = node.get("step")
    if step is not None and (
        isinstance(step, bool) or not isinstance(step, int | float) or type(step) not in wanted
    ):
        raise SpaceError(f"`step` must be a {kind}, not {step!r}")
    return Range(numbers[0], numbers[1], step, bool(node.get("log", False)), kind == "int")


def _conditions(path: str, when: Any) -> tuple[Condition, ...]:
    if not isinstance(when, Mapping):
        raise SpaceError(f"space.{path}.when must map knobs to a value or a list of values, not {when!r}")
    stage = path.rpartition(".")[0]
    return tuple(
        # a name without a dot is a knob of the same stage
        Condition(
            key if "." in key or not stage else f"{stage}.{key}",
            tuple(freeze(v) for v in (value if isinstance(value, list | tuple) else [value])),
        )
        for key, value in when.items()
    )


def _groups(
    path: str, node: Mapping[str, Any], layers: Sequence[str] | None
) -> list[tuple[str, Domain, tuple[str, ...]]] | None:
    if node.get("per") is not None:
        if node["per"] != "layer":
            raise SpaceError(
                f"space.{path}.per can only be 'layer', not {node['per']!r}; use `groups` for groups"
            )
        names = [_ANY_LAYER] if layers is None else layers
        return [(name, _domain(path, node), (name,)) for name in names]
    if node.get("groups") is None:
        return None
    left, found = list(layers or ()), []
    for position, rule in enumerate(node["groups"]):
        where = f"{path}.groups[{position}]"
        name, patterns = _rule(where, rule)
        members = tuple(n for n in left if any(fnmatchcase(n, p) for p in patterns))
        if layers is not None and not members:
            raise SpaceError(
                f"space.{where}: {', '.join(patterns)} matches no layer that an earlier group left over; "
                f"the model's layers are: {', '.join(layers)}"
            )
        left = [n for n in left if n not in members]
        own = {key: value for key, value in rule.items() if key in _DOMAIN_KEYS}
        found.append((name, _domain(where, {**_without_domain(node), **own} if own else node), members))
    return found


def _rule(where: str, rule: Any) -> tuple[str, tuple[str, ...]]:
    if not isinstance(rule, Mapping) or "name" not in rule or "match" not in rule:
        raise SpaceError(
            f"space.{where} must have `name` and `match` (a glob pattern or a list), not {rule!r}"
        )
    unknown = [key for key in rule if key not in ("name", "match", *_DOMAIN_KEYS, "step", "log", "ordered")]
    if unknown:
        raise SpaceError(unknown_name("key", unknown[0], ("name", "match", *_DOMAIN_KEYS), f"space.{where}"))
    patterns = rule["match"] if isinstance(rule["match"], list | tuple) else [rule["match"]]
    return str(rule["name"]), tuple(map(str, patterns))


def _without_domain(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in _DOMAIN_KEYS}


def _check_against_stages(knobs: Sequence[Knob], stages: Sequence[HasKnobs]) -> None:
    by_name = {stage.name: {spec.name: spec for spec in stage.knobs} for stage in stages}
    for knob in knobs:
        stage, _, name = knob.base.partition(".")
        if stage not in by_name:
            raise SpaceError(unknown_name("stage", stage, by_name, f"space.{knob.base}"))
        if name not in by_name[stage]:
            raise SpaceError(unknown_name("knob", name, by_name[stage], f"space.{stage}"))
        _check_values(knob, by_name[stage][name])


def _check_values(knob: Knob, spec: KnobSpec) -> None:
    if knob.layers is not None and not spec.per_layer:
        raise SpaceError(
            f"space.{knob.base}: this knob has one value for the whole model; drop `groups` / `per`"
        )
    domain = knob.domain
    values = tuple(domain) if isinstance(domain, Choices) else _ends(domain)
    for value in values:
        problem = spec.problem(value)
        if problem is not None:
            raise SpaceError(f"space.{knob.path}: {spec.name} {problem}{_yaml_note(value)}")


def _yaml_note(value: Value) -> str:
    """Returns how YAML comes to read a word as true or false; nothing for other values."""
    if not isinstance(value, bool):
        return ""
    return f" ({yaml_word(value)})"


def _ends(domain: Range) -> tuple[Value, ...]:
    ends = (domain.low, domain.high)
    return tuple(round(e) for e in ends) if domain.integer else tuple(float(e) for e in ends)
