import pytest

from evaluators.cost.energy.meter import EnergyMeter, rapl_counters
from evaluators.cost.energy.power import PowerEvaluator
from evaluators.testing import EvaluatorConformance, tiny_context, tiny_model
from spaces.errors import ConfigError, EvaluationError


class TestConformance(EvaluatorConformance):
    def make_evaluator(self):
        return PowerEvaluator(seconds=0.01)


class Counter:
    """Returns the given readings, one per call."""

    def __init__(self, *readings, wraps_at=None):
        self.name, self._readings, self.wraps_at_joules = "test", list(readings), wraps_at

    def joules(self):
        return self._readings.pop(0)


def domain(root, folder, name, energy_uj, wraps_at_uj=10_000_000):
    (root / folder).mkdir()
    for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", wraps_at_uj)):
        (root / folder / file).write_text(f"{value}\n")


def test_packages_and_memory_are_counted_and_their_parts_are_not(tmp_path):
    domain(tmp_path, "intel-rapl:0", "package-0", 2_500_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    domain(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    counters, reason = rapl_counters(tmp_path)
    assert reason == ""
    assert [(c.name, c.joules(), c.wraps_at_joules) for c in counters] == [
        ("rapl package-0", 2.5, 10.0),
        ("rapl dram", 0.5, 10.0),
    ]


def test_a_package_that_is_listed_twice_is_counted_once(tmp_path):
    """Client processors list a package as registers (`intel-rapl`) and as MMIO (`intel-rapl-mmio`)."""
    domain(tmp_path, "intel-rapl:0", "package-0", 2_500_000)
    domain(tmp_path, "intel-rapl:0:0", "dram", 500_000)
    domain(tmp_path, "intel-rapl-mmio:0", "package-0", 2_500_001)
    domain(tmp_path, "intel-rapl-mmio:0:0", "dram", 500_001)
    counters, _ = rapl_counters(tmp_path)
    assert [c.folder.name for c in counters] == ["intel-rapl:0", "intel-rapl:0:0"]


def test_a_package_that_is_listed_as_mmio_only_is_counted(tmp_path):
    domain(tmp_path, "intel-rapl-mmio:0", "package-0", 2_500_000)
    domain(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    counters, _ = rapl_counters(tmp_path)
    assert [c.name for c in counters] == ["rapl package-0"]


def test_each_socket_of_a_server_counts_with_its_memory(tmp_path):
    for socket in (0, 1):
        domain(tmp_path, f"intel-rapl:{socket}", f"package-{socket}", 1_000_000)
        domain(tmp_path, f"intel-rapl:{socket}:0", "dram", 500_000)
    counters, _ = rapl_counters(tmp_path)
    assert sum(c.joules() for c in counters) == 3.0


def test_a_machine_without_counters_reports_the_reason(tmp_path):
    assert rapl_counters(tmp_path) == (
        [],
        f"{tmp_path} lists no RAPL domain, as in most virtual machines and containers",
    )
    evaluation = PowerEvaluator(seconds=0.01, root=str(tmp_path)).evaluate(tiny_model(), tiny_context())
    assert evaluation.measurements == ()
    assert "no RAPL domain" in evaluation.details["power"]["absent_because"]


def test_a_meter_adds_its_counters_and_handles_overflow():
    with EnergyMeter([Counter(1.0, 4.0), Counter(9.0, 2.0, wraps_at=10.0)]) as meter:
        pass
    assert meter.joules == pytest.approx(3.0 + 3.0)


def test_a_meter_without_counters_is_refused():
    with pytest.raises(EvaluationError, match="at least one counter"):
        EnergyMeter([])


class Growing:
    """Increases by one joule per reading."""

    name, wraps_at_joules = "growing", None

    def __init__(self):
        self._read = 0

    def joules(self):
        self._read += 1
        return float(self._read)


def test_energy_per_run_comes_from_the_counter(monkeypatch):
    monkeypatch.setattr("evaluators.cost.energy.power.rapl_counters", lambda _: ([Growing()], ""))
    evaluation = PowerEvaluator(seconds=0.01).evaluate(tiny_model(), tiny_context())
    energy, power = evaluation.measurements
    details = evaluation.details["power"]
    assert (energy.name, energy.unit, energy.source, energy.device) == ("energy_uj", "uJ", "measured", "host")
    assert energy.value == pytest.approx(1e6 / details["runs"])
    assert (power.name, power.value) == ("active_power_mw", pytest.approx(1e3 / details["seconds"]))


def test_a_counter_that_stands_still_yields_no_measurement(tmp_path):
    domain(tmp_path, "intel-rapl:0", "package-0", 7_000_000)
    evaluation = PowerEvaluator(seconds=0.01, root=str(tmp_path)).evaluate(tiny_model(), tiny_context())
    assert evaluation.measurements == ()
    assert evaluation.details["power"] == {"absent_because": "the counters stand still: rapl package-0"}


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match=r"evaluator\.power"):
        PowerEvaluator(seconds=0)
