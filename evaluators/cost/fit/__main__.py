"""Fits a device profile to measured latencies and energies of networks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluators.cost.fit.measurements import read_measurements, write_profile
from evaluators.cost.fit.profile import fit_profile
from spaces.errors import ParedownError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status (2 for invalid input, which is reported in one line)."""
    parser = argparse.ArgumentParser(prog="python -m evaluators.cost.fit", description=__doc__)
    parser.add_argument("measurements", type=Path, help="CSV of measured networks")
    parser.add_argument("--name", required=True, help="the device's name in configs")
    parser.add_argument("--runtime", required=True, help="what runs the networks there, its version last")
    parser.add_argument("--description", default="", help="the hardware")
    parser.add_argument("--source", default="", help="who measured, where it is published")
    parser.add_argument("--out", type=Path, help="YAML to write; default NAME.yaml")
    given = parser.parse_args(arguments)
    try:
        rows = read_measurements(given.measurements)
        fitted = fit_profile(rows, given.name, given.runtime, given.description)
        out = given.out or Path(f"{given.name}.yaml")
        written = write_profile(fitted, rows, out, given.source or given.measurements.name)
    except ParedownError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
