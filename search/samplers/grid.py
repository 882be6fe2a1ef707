"""Grid: every candidate once, in the order of the space, the last knob varying fastest."""

from search.samplers.brute_force import BruteForceSampler


class GridSampler(BruteForceSampler):
    """Proposes the candidates in order; a baseline for other samplers.

    Unlike `optuna.samplers.GridSampler` it needs no list of values beforehand, respects conditions between knobs and
    does not shuffle.

    Args:
        seed: Used only after every candidate has been proposed.
        stop_when_done: Whether to stop `study.optimize` after the last candidate.
    """

    def _choose(self, n_left: int) -> int:
        return 0
