import copy
import logging
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from spaces.models.export import ExportStage
from spaces.models.testing import outputs_of
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.module_identity import identity
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import module_digest, torch_artifact


class Signed(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(2))
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer(x) * self.sign


class Holder(nn.Module):
    """A module with one attribute."""

    def __init__(self, value=None):
        super().__init__()
        self.value = value

    def forward(self, x):
        return x


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Options:
    width: int
    names: tuple[str, ...] = ()


def scaled(factor):
    return lambda x: x * factor


def test_networks_that_differ_in_an_argument_do_not_share_an_export(tmp_path):
    made = []
    for sign in (1, -1):
        start = torch_artifact(Signed(sign), InputSpec((2,)))
        made.append(Pipeline([ExportStage()]).run(start, {}, StageContext(None, Cache(tmp_path))))
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(outputs_of(made[0], x), x)
    np.testing.assert_array_equal(outputs_of(made[1], x), -x)


VALUES = [
    None, 1, 1.0, True, "1", b"1", 2, [1, 2], [2, 1], {"a": 1}, {"a": 2}, {1, 2}, {1, 3},
    torch.ones(2), torch.zeros(2), torch.ones(2, dtype=torch.int32), np.ones(2), np.zeros(2), torch.float32, torch.int8,
    Colour.RED, Colour.BLUE, Options(1), Options(2), Options(1, ("a",)), Options,
    scaled(1), scaled(2), lambda x: x, lambda x: -x, partial(max, 1), partial(max, 2), torch.relu, torch.tanh,
    Holder(1), Holder(2), nn.Linear(2, 2), range(3), slice(1), logging.getLogger("a"), logging.getLogger("b"),
]  # fmt: skip


def test_the_digest_depends_on_every_kind_of_attribute_and_copies_are_equal():
    modules = [Holder() for _ in VALUES]
    for module, value in zip(modules, VALUES, strict=True):
        vars(module)["value"] = value
    found = [module_digest(module) for module in modules]
    assert len(set(found)) == len(VALUES)
    assert [module_digest(copy.deepcopy(module)) for module in modules] == found


def test_recursive_values_terminate():
    parent, value = nn.Sequential(Holder()), []
    value.append(value)
    parent[0].value = [value]
    vars(parent[0])["parent"] = parent
    parent[0].method = parent[0].forward
    assert module_digest(parent) == module_digest(copy.deepcopy(parent))


def changed_hook(net):
    net[0].register_forward_hook(lambda module, given, out: -out)


def changed_buffer(net):
    net[0].register_buffer("hidden", torch.ones(2), persistent=False)


def changed_forward(net):
    net[0].forward = torch.relu


def frozen(net):
    net[0].weight.requires_grad_(False)


def tied(net):
    net[1].weight = net[0].weight


def shared(net):
    net[1] = net[0]


@pytest.mark.parametrize("change", [changed_hook, changed_buffer, changed_forward, frozen, tied, shared])
def test_the_digest_depends_on_changes_outside_the_state_dict(change):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].load_state_dict(net[0].state_dict())
    before = module_digest(net)
    assert module_digest(net.train()) == before
    change(net)
    assert module_digest(net) != before
    assert module_digest(copy.deepcopy(net)) == module_digest(net)


def test_a_structure_may_have_other_numbers_but_no_other_attributes():
    nets = [nn.Sequential(nn.Linear(2, 2), Holder(value)) for value in (1, 1, 2)]
    found = [identity(net, with_values=False) for net in nets]
    assert found[0] == found[1] != found[2]
    assert module_digest(nets[0]) != module_digest(nets[1])
