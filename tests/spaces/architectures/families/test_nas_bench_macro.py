import csv
import random
from pathlib import Path

import pytest

from spaces.architectures.families.nas_bench_macro import NASBenchMacro
from spaces.architectures.testing import FamilyConformance
from spaces.errors import ConfigError

TABLE = Path(__file__).parents[4].parent / "shared/data/tables/nas_bench_macro.csv"
CODES = {"i": "identity", "3": "mb3_k3", "6": "mb6_k5"}


class TestNASBenchMacro(FamilyConformance):
    @pytest.fixture
    def family(self):
        return NASBenchMacro(stem=8, last=32)


# Parameters and MACs of rows of the public table.
@pytest.mark.parametrize(
    ("layers", "parameters", "macs"),
    [
        ("iiiiiiii", 387_882, 7_713_280),
        ("i33336i6", 1_769_258, 54_194_688),
        ("6i3i36ii", 828_970, 37_892_608),
        ("6636i6i3", 1_408_682, 66_634_240),
        ("ii6i3i3i", 971_818, 30_155_264),
        ("i66363i3", 1_371_050, 63_257_088),
        ("66666666", 2_932_586, 105_660_928),
    ],
)
def test_costs_are_those_of_the_public_table(layers, parameters, macs):
    counts = NASBenchMacro().counts(knobs(layers), (3, 32, 32), 10)
    assert (counts.parameters, counts.macs) == (parameters, macs)


@pytest.mark.slow
def test_costs_of_50_random_rows_are_those_of_the_public_table():
    if not TABLE.is_file():
        pytest.skip("the public table is absent")
    with TABLE.open() as file:
        rows = random.Random(0).sample(list(csv.DictReader(file)), 50)
    for row in rows:
        values = NASBenchMacro().defaults() | {f"block{at}": row[f"knob.block{at}"] for at in range(1, 9)}
        counts = NASBenchMacro().counts(values, (3, 32, 32), 10)
        assert (counts.parameters, counts.macs) == (int(row["metric.params"]), int(row["metric.macs"])), row


def test_where_identities_are_makes_no_difference_within_a_stage():
    family = NASBenchMacro()
    assert family.canonical(knobs("3i6iiii3")) == family.canonical(knobs("3i6iii3i"))
    assert family.canonical(knobs("3i6i3iii")) != family.canonical(
        knobs("3ii63iii")
    )  # the first changes the shape
    assert family.canonical(knobs("3i636iii")) != family.canonical(
        knobs("3i663iii")
    )  # the order of others matters


@pytest.mark.parametrize("name", ["stem", "last"])
def test_channels_are_positive(name):
    with pytest.raises(ConfigError, match=rf"model\.family\.{name} must be at least 1, not 0"):
        NASBenchMacro(**{name: 0})


def knobs(layers):
    return NASBenchMacro().defaults() | {f"block{at}": CODES[code] for at, code in enumerate(layers, 1)}
