"""The state of a training after its last full epoch, cached so that a killed run can be resumed."""

import copy
import io
import logging
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import nn

from spaces.recovery.training.curve import Curve
from spaces.recovery.training.stored_activations import StoredBytes
from spaces.stages.cache import Cache

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """One training's checkpoint.

    Attributes:
        cache: Where the checkpoint is kept.
        key: Digest of everything that the training's result depends on; None keeps nothing.
    """

    cache: Cache
    key: str | None

    def keep(self, module: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve) -> None:
        """Keeps the state after an epoch.

        Args:
            module: The network, with the loss if that is a module.
            optimizer: Its optimizer.
            curve: The curve of the epochs so far; its length is their number.
        """
        if self.key is None:
            return
        state = {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "losses": list(curve.losses),
            "learning_rates": list(curve.learning_rates),
            "peak_rate": curve.peak_rate,
            "seconds": list(curve.seconds),
            "activations": None if curve.activations is None else astuple(curve.activations),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.cache.keep(self._name, buffer.getvalue())

    def peak_rate(self) -> float | None:
        """Returns the peak learning rate that an interrupted training began with; None if nothing was kept."""
        try:
            rate = (self._state() or {}).get("peak_rate")
        except Exception:  # torch raises many kinds; `restore` tells the user
            return None
        return rate if isinstance(rate, float) else None

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Curve:
        """Puts the kept state into `module` and `optimizer`; returns the curve so far, empty if nothing was kept."""
        before = copy.deepcopy(module.state_dict())
        try:
            state = self._state()
            if state is None:
                return Curve()
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
            losses, rates, seconds = (tuple(state[name]) for name in ("losses", "learning_rates", "seconds"))
            activations = None if state["activations"] is None else StoredBytes(*state["activations"])
            return Curve(losses, rates, activations=activations, seconds=seconds)
        except Exception as error:  # torch raises many kinds, e.g. for the state of another version
            _LOG.warning(
                "%s: the checkpoint does not fit and is ignored, training starts again: %s", self._name, error
            )
            module.load_state_dict(before)
            return Curve()

    def _state(self) -> dict[str, Any] | None:
        data = None if self.key is None else self.cache.find(self._name)
        return None if data is None else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    def drop(self) -> None:
        """Deletes the state after the training."""
        if self.key is not None:
            self.cache.drop(self._name)

    @property
    def _name(self) -> str:
        return f"training-{self.key}.pt"
