from collections.abc import Sequence
from typing import Any

import pytest

from search.executors.processes import ProcessesExecutor
from search.planning.config.instantiate import check_targets, instantiate
from spaces.errors import ConfigError, UntrustedTargetError

PROCESSES = "search.executors.processes.ProcessesExecutor"


def test_makes_the_object_with_its_keys():
    made = instantiate({"_target_": PROCESSES, "workers": 3}, "executor", ())
    assert isinstance(made, ProcessesExecutor)
    assert made.slots == 3


def test_extra_arguments_are_passed_only_where_they_are_taken():
    assert instantiate({"_target_": PROCESSES}, "executor", (), workers=2, seed=1).slots == 2


@pytest.mark.parametrize(
    ("section", "error", "text"),
    [
        ({"_target_": PROCESSES, "worker": 3}, ConfigError, "Unknown key 'worker' in executor.*'workers'"),
        (
            {"_target_": PROCESSES, "workers": "three"},
            ConfigError,
            "executor.workers must be a whole number or null",
        ),
        ({"_target_": PROCESSES, "workers": True}, ConfigError, "executor.workers must be"),
        ({"_target_": PROCESSES, "workers": "???"}, ConfigError, "executor.workers must be given"),
        ({"workers": 3}, ConfigError, "must name a class"),
        (
            {"_target_": "os.system", "command": "x"},
            UntrustedTargetError,
            "executor._target_.*trusted_modules",
        ),
        ({"_target_": "searching.x"}, UntrustedTargetError, "outside the trusted"),
        ({"_target_": "search.executors.pool.time.sleep"}, UntrustedTargetError, "executor"),
    ],
)
def test_mistakes_raise(section, error, text):
    with pytest.raises(error, match=text):
        instantiate(section, "executor", ())


def test_every_target_of_a_config_is_checked_before_anything_is_made():
    check_targets({"a": [{"_target_": PROCESSES}], "b": {"c": {"_target_": "mine.X"}}}, ["mine"])
    with pytest.raises(UntrustedTargetError, match=r"a\[1\]\._target_"):
        check_targets({"a": [{"_target_": PROCESSES}, {"_target_": "builtins.eval"}]}, [])


class Base:
    def __init__(self, first: int, second: str = "b") -> None:
        self.first, self.second = first, second


class Derived(Base):
    def __init__(self, part: object, third: float = 0.5, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.part, self.third = part, third


HERE = f"{__name__}.Derived"


def test_objects_within_a_section_are_made_first_also_in_lists():
    inner = {"_target_": f"{__name__}.Base", "first": 2}
    made = instantiate(
        {"_target_": HERE, "first": 1, "part": [inner, inner]}, "task", [__name__.split(".")[0]]
    )
    assert [type(part) for part in made.part] == [Base, Base]
    assert (made.first, made.second, made.third, made.part[0].first) == (1, "b", 0.5, 2)


def test_arguments_that_are_passed_on_to_a_base_class_are_checked_too():
    trusted = [__name__.split(".")[0]]
    with pytest.raises(ConfigError, match=r"Unknown key 'frist' in task\. Did you mean 'first'"):
        instantiate({"_target_": HERE, "part": 1, "frist": 1}, "task", trusted)
    with pytest.raises(ConfigError, match=r"task\.first must be a whole number, not 'x'"):
        instantiate({"_target_": HERE, "part": 1, "first": "x"}, "task", trusted)
    with pytest.raises(ConfigError, match=r"task\.part\.first must be given"):
        instantiate({"_target_": HERE, "first": 1, "part": {"_target_": f"{__name__}.Base"}}, "task", trusted)


class Part:
    pass


class Wants:
    def __init__(self, part: Part | None = None, parts: Sequence[Part] = (), anything: Any = None) -> None:
        self.part, self.parts, self.anything = part, parts, anything


WANTS, PART = f"{__name__}.Wants", {"_target_": f"{__name__}.Part"}
OWN = {"_target_": PROCESSES}


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("part", {"_target_": HERE}, "part"),
        ("parts", [PART, {"_target_": HERE}], r"parts\[1\]"),
        ("part", OWN, "part"),
    ],
)
def test_objects_within_a_section_are_of_the_kind_that_the_parameter_asks_for(key, value, place):
    trusted = [__name__.split(".")[0]]
    with pytest.raises(ConfigError, match=rf"task\.{place}\._target_: .* is no Part"):
        instantiate({"_target_": WANTS, key: value}, "task", trusted)
    made = instantiate({"_target_": WANTS, "part": PART, "parts": [PART], "anything": PART}, "task", trusted)
    assert [type(x) for x in (made.part, made.parts[0], made.anything)] == [Part] * 3


def test_a_parameter_without_a_type_takes_none_of_our_classes_but_parts_of_tasks():
    trusted = [__name__.split(".")[0]]
    top_k = {"_target_": "evaluators.task.metrics.classes.top_k.TopK", "k": 3}
    assert instantiate({"_target_": WANTS, "anything": top_k}, "task", trusted).anything.name == "top3"
    with pytest.raises(UntrustedTargetError, match=r"task\.anything\._target_: .* is no part of a task"):
        instantiate({"_target_": WANTS, "anything": OWN}, "task", trusted)


def test_what_a_section_says_of_trust_is_not_passed_on():
    section = {"_target_": "spaces.models.torch_checkpoint.TorchModel", "cls": "torch.nn.ReLU", "checkpoint": None,
               "input_shape": [1], "trusted_modules": ["os"]}  # fmt: skip
    assert instantiate(section, "model", (), trusted_modules=["mine"]).trusted_modules == ("mine",)
