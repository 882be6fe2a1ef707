"""Energy measured on this machine while a model runs, if the machine has energy counters."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import ClassVar

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline
from evaluators.cost.energy.meter import EnergyMeter, rapl_counters
from evaluators.cost.latency.measured import pinned, runner
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact


class PowerEvaluator(Evaluator):
    """Runs the model repeatedly and reads the processor's energy counters (RAPL).

    Yields for each device that is this machine `energy_uj` (energy of package and DRAM per run, idle power
    included) and `active_power_mw`. The counters cover the whole machine, so nothing else should run. Without
    counters both are absent, not zero, and `details["power"]` gives the reason.

    Args:
        seconds: How long to run the model.
        threads: onnxruntime's intra-op threads.
        root: Folder of Linux's powercap interface.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "power"
    exclusive: ClassVar[bool] = True
    repeatable: ClassVar[bool] = False

    def __init__(self, seconds: float = 1.0, threads: int = 1, root: str = "/sys/class/powercap") -> None:
        if not seconds > 0 or threads < 1:
            raise ConfigError(
                f"evaluator.power: seconds ({seconds}) must be above 0, threads ({threads}) at least 1"
            )
        self.seconds, self.threads, self.root = seconds, threads, root

    def times(self, context: EvaluationContext) -> bool:
        """Whether a device of the study is this machine."""
        return any(device.measured for device in context.devices.values())

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of this machine's devices."""
        return outline.costs(("energy_uj", "active_power_mw"), measured=True)

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns energy and power of one ONNX artifact.

        Raises:
            EvaluationError: The model cannot be run.
        """
        names = [name for name, device in context.devices.items() if device.measured]
        counters, reason = rapl_counters(Path(self.root))
        if not names or not counters:
            return Evaluation((), {"power": {"absent_because": reason}} if names else {})
        with pinned(self.threads):
            run = runner(artifact, context.split, self.threads)
            run()
            with EnergyMeter(counters) as meter:
                n_runs, took_s = _repeat(run, self.seconds)
        if not meter.joules:  # energy is never zero, so these counters do not count
            reason = f"the counters stand still: {', '.join(meter.by_counter)}"
            return Evaluation((), {"power": {"absent_because": reason}})
        values = (
            ("energy_uj", 1e6 * meter.joules / n_runs, "uJ"),
            ("active_power_mw", 1e3 * meter.joules / took_s, "mW"),
        )
        return Evaluation(
            tuple(
                Measurement(name, value, unit, "measured", d) for d in names for name, value, unit in values
            ),
            {"power": {"runs": n_runs, "seconds": took_s, "joules": meter.by_counter}},
        )


def _repeat(run: Callable[[], object], seconds: float) -> tuple[int, float]:
    began, n_runs = perf_counter(), 0
    while perf_counter() - began < seconds or n_runs == 0:
        run()
        n_runs += 1
    return n_runs, perf_counter() - began
