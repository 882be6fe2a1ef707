"""A radio that hops between channels away from a jammer: a small simulation, an example of an environment.

The setting is that of "Defeating Proactive Jammers Using Deep Reinforcement Learning": in every slot the radio picks a channel, and sees
the power that was received on every channel in the last slots. All signals are made by this code.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spaces.errors import ConfigError

Jammer = Literal["sweep", "random", "reactive", "mixed"]
_MIXED = ("sweep", "reactive")


class JammingEnvironment:
    """Rewards 1 for a slot on a free channel and -1 for one on a jammed channel, less the cost of a change of channel.

    An observation is the power on each channel in the last `history` slots, the latest first, about 1 where there was jamming and else
    about 0, and 1 for the channel of the last slot: `(history * channels + channels,)`.

    Args:
        channels: Number of channels.
        jammer: `sweep` jams `width` neighbouring channels, which move by one each slot, up or down; `random` jams any `width`
            channels, drawn anew each slot; `reactive` jams the channel that the radio used in the slot before; `mixed` is a sweep or
            reactive, drawn for each episode.
        width: Number of channels that are jammed at a time.
        slots: Length of an episode.
        history: Number of slots that an observation has.
        switching_cost: Cost of a change of channel.
        reaction: Probability that a reactive jammer jams.
        noise: Standard deviation of the noise of a power.

    Attributes:
        n_actions: Number of channels.
        return_bounds: Lowest and highest return: all slots jammed with changes, all free without.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        channels: int = 8,
        jammer: Jammer = "sweep",
        width: int = 4,
        slots: int = 50,
        history: int = 2,
        switching_cost: float = 0.1,
        reaction: float = 1.0,
        noise: float = 0.1,
    ) -> None:
        where = "task.environment"
        if jammer not in get_args(Jammer):
            raise ConfigError(f"{where}.jammer must be one of {', '.join(get_args(Jammer))}, not {jammer!r}")
        if not 0 < width < channels:
            raise ConfigError(f"{where}.width must lie in 1..{channels - 1}, not {width}")
        if slots < 1 or history < 1:
            raise ConfigError(f"{where}.slots ({slots}) and history ({history}) must be at least 1")
        if not 0 <= reaction <= 1 or switching_cost < 0 or noise < 0:
            raise ConfigError(
                f"{where}.reaction must lie in 0..1; switching_cost and noise must not be negative"
            )
        self.n_actions = channels
        self.return_bounds = (-slots * (1.0 + switching_cost), float(slots))
        self._jammer, self._width, self._slots, self._history = jammer, width, slots, history
        self._cost, self._reaction, self._noise = switching_cost, reaction, noise

    def reset(self, *, seed: int) -> NDArray[np.float32]:
        """Begins an episode; the radio has listened for `history` slots."""
        self._rng = np.random.default_rng(seed)
        self._kind = str(self._rng.choice(_MIXED)) if self._jammer == "mixed" else self._jammer
        self._start, self._direction = int(self._rng.integers(self.n_actions)), int(self._rng.choice([-1, 1]))
        self._own: int | None = None
        self._powers: list[NDArray[np.float64]] = []
        self._slot = -self._history
        while self._slot < 0:
            self._listen(self._jammed())
        self._next = self._jammed()
        return self._observation()

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool]:
        """Uses a channel for a slot."""
        reward = -1.0 if self._next[action] else 1.0
        if self._own not in (None, action):
            reward -= self._cost
        self._own = int(action)
        self._listen(self._next)
        self._next = self._jammed()
        return self._observation(), reward, self._slot == self._slots

    def advice(self) -> int:
        """Returns the best channel: the own one while it is free, else the one that stays free longest.

        It is best for a sweep; for a reactive jammer that always jams, if a change costs less than 2; and for a random jammer, of
        which nothing can be known.
        """
        if self._kind == "reactive":
            return 0 if self._own is None else (self._own + 1) % self.n_actions
        if self._kind == "random":
            return self._own or 0
        free = self._free_slots()
        return self._own if self._own is not None and free[self._own] else int(free.argmax())

    def random_return(self) -> float:
        """Returns the expected return of a policy that picks each slot's channel at random.

        With `n` channels a channel is jammed with probability `width / n`, or `reaction / n` after the first slot by a reactive
        jammer, and changes with probability `(n - 1) / n` after the first slot.
        """
        n, later = self.n_actions, self._slots - 1
        changes = self._cost * later * (n - 1) / n
        jammed = {"reactive": later * self._reaction / n}
        kinds = _MIXED if self._jammer == "mixed" else (self._jammer,)
        return float(
            np.mean([self._slots - 2 * jammed.get(k, self._slots * self._width / n) - changes for k in kinds])
        )

    def _jammed(self) -> NDArray[np.bool_]:
        """Returns which channels are jammed in the present slot, `(channels,)`."""
        if self._kind == "sweep":
            return self._place() < self._width
        jammed = np.zeros(self.n_actions, bool)
        if self._kind == "random":
            jammed[self._rng.choice(self.n_actions, self._width, replace=False)] = True
        elif self._own is not None:
            jammed[self._own] = self._rng.random() < self._reaction
        return jammed

    def _place(self) -> NDArray[Any]:
        """Returns each channel's place in the sweep, `(channels,)`: those below `width` are jammed."""
        front = self._start + self._direction * self._slot
        return (np.arange(self.n_actions) - front) % self.n_actions

    def _free_slots(self) -> NDArray[Any]:
        """Returns for how many slots, from the present one on, a sweep leaves each channel free, `(channels,)`."""
        place = self._place()
        until = place - self._width + 1 if self._direction > 0 else self.n_actions - place
        return np.where(place < self._width, 0, until)

    def _listen(self, jammed: NDArray[np.bool_]) -> None:
        """Ends a slot."""
        power = jammed + self._noise * self._rng.standard_normal(self.n_actions)
        self._powers = [power, *self._powers][: self._history]
        self._slot += 1

    def _observation(self) -> NDArray[np.float32]:
        own = np.zeros(self.n_actions)
        if self._own is not None:
            own[self._own] = 1
        return np.concatenate([*self._powers, own]).astype(np.float32)
