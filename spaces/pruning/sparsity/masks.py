"""Random masks on the channels of a network while it trains."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spaces.pruning.groups.group import Group
from spaces.pruning.sparsity.mask_places import MaskPlace
from spaces.recovery.training.determinism import seed_of

LOG_VARIANCE = -4.6  # initial: sigma is a tenth of mu. From VTrans' -9 it takes thousands of steps to grow
SPREAD = 0.01  # initial standard deviation of the means
_TINY = 1e-12


class Masks(nn.Module):
    """Gaussian masks `z = mu + eps * sigma`, one per channel, redrawn every training step; `mu` in eval mode.

    After `decide`, the masks are `mu` for channels that are on, and 0 for the others.

    Attributes:
        means: `mu` of all groups' channels, concatenated, `(n,)`.
        log_variances: `log sigma^2`, `(n,)`.
        on: Which channels are on, `(n,)` of 0 or 1; all of them before `decide`.
        decided: Whether `decide` was called.
        step: Number of training steps so far.
    """

    on: Tensor
    decided: Tensor
    step: Tensor

    def __init__(self, groups: Sequence[Group], seed: int) -> None:
        super().__init__()
        self._names, self._sizes = [g.name for g in groups], [g.n_channels for g in groups]
        self._seed, self._drawn = seed, dict[str, Tensor]()
        n, generator = sum(self._sizes), torch.Generator().manual_seed(seed)
        self.means = nn.Parameter(1 + SPREAD * torch.randn(n, generator=generator))
        self.log_variances = nn.Parameter(torch.full((n,), LOG_VARIANCE))
        self.register_buffer("on", torch.ones(n))
        self.register_buffer("decided", torch.tensor(False))
        self.register_buffer("step", torch.tensor(0))

    def by_group(self, values: Tensor) -> dict[str, Tensor]:
        """Splits `(n,)` values by name of the group."""
        return dict(zip(self._names, torch.split(values, self._sizes), strict=True))

    @property
    def log_alphas(self) -> Tensor:
        """`log(sigma^2 / mu^2)` `(n,)`: above 0 a channel is unimportant: noise outweighs its signal."""
        return self.log_variances - torch.log(self.means.square() + _TINY)

    def divergence(self) -> Tensor:
        """Returns the mean information that masks transmit, `1/2 log(1 + mu^2 / sigma^2)` nats per channel.

        The formula is that of Dai et al. 2018, arXiv 1802.10399. The mean, not the sum, makes strengths
        comparable between networks of different widths.
        """
        return 0.5 * nn.functional.softplus(-self.log_alphas).mean()

    def decide(self, on: dict[str, Tensor]) -> None:
        """Fixes which channels are on, by name of the group."""
        self.on.copy_(torch.cat([on[name] for name in self._names]))
        self.decided.fill_(True)

    @contextmanager
    def acting(self, module: nn.Module, places: Sequence[MaskPlace]) -> Iterator[None]:
        """Masks a network's channels at `places` until the block ends."""
        modules = dict(module.named_modules())
        with ExitStack() as stack:
            stack.callback(module.register_forward_pre_hook(self._draw).remove)
            for place in places:
                hook = partial(self._mask, place)
                stack.callback(modules[place.module].register_forward_hook(hook).remove)
            yield

    def _draw(self, module: nn.Module, _: Any) -> None:
        """Draws the masks that all places of one forward pass share."""
        values = self.means.detach() * self.on
        if module.training and not self.decided:
            generator = torch.Generator().manual_seed(seed_of("masks", self._seed, int(self.step)))
            noise = torch.randn(len(self.means), generator=generator).to(self.means.device)
            values = self.means + noise * torch.exp(0.5 * self.log_variances)
        self._drawn = self.by_group(values)

    def _mask(self, place: MaskPlace, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        factors = torch.ones(place.n_channels, device=output.device)
        for name, rows in place.rows.items():
            index = torch.from_numpy(rows.reshape(-1)).to(output.device)
            values = self._drawn[name].to(output.device).repeat_interleave(rows.shape[1])
            factors = factors.index_put((index,), values)
        shape = [1] * output.ndim
        shape[place.axis] = -1
        return output * factors.view(shape)
