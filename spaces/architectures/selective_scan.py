"""Mamba's layer, with its selective scan in plain operators (Gu and Dao 2023, arXiv 2312.00752)."""

from math import ceil, log

import torch
from torch import Tensor, nn
from torch.nn import functional

STEP_SIZES = (1e-3, 0.1)  # of untrained layers


class Mamba(nn.Module):
    """A gated causal convolution and a recurrence whose coefficients depend on the input: `(n, time, width)` -> the same shape.

    Parameters have the names of the package mamba_ssm, so that its checkpoints load.

    Args:
        width: Values of a token.
        expand: Channels of the recurrence per value of a token.
        d_state: States of each channel.
        d_conv: Kernel size of the convolution along time.
    """

    def __init__(self, width: int, expand: int = 2, d_state: int = 16, d_conv: int = 4) -> None:
        super().__init__()
        inner, self.rank, self.d_state = width * expand, ceil(width / 16), d_state
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        states = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(torch.log(states).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs; each depends on the tokens up to its own."""
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        inner = self.conv1d(inner.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        inner = functional.silu(inner)
        return self.out_proj(self._recurrence(inner) * functional.silu(gate))  # type: ignore[no-any-return]

    def _recurrence(self, x: Tensor) -> Tensor:
        """Returns `y_t = C_t h_t + D x_t` with `h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t` (section 3.2), `(n, time, inner)`."""
        step, into, out_of = self.x_proj(x).split([self.rank, self.d_state, self.d_state], dim=-1)
        step = functional.softplus(self.dt_proj(step))
        decay = torch.exp(step.unsqueeze(-1) * -torch.exp(self.A_log))
        states = scan(decay, (step * x).unsqueeze(-1) * into.unsqueeze(2))
        outputs: Tensor = (states @ out_of.unsqueeze(-1)).squeeze(-1) + self.D * x
        return outputs

    def _initialise(self) -> None:
        """Draws step sizes that are spread over magnitudes, as the paper's code does."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = map(log, STEP_SIZES)
        with torch.no_grad():
            step = torch.exp(torch.rand_like(self.dt_proj.bias) * (high - low) + low)
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus


def scan(decay: Tensor, drive: Tensor) -> Tensor:
    """Returns `h_t = decay_t h_{t-1} + drive_t` with `h_{-1} = 0`.

    Spans of 1, 2, 4, ... steps are put together (Hillis and Steele 1986): a graph of logarithmic depth, without loops, that every
    runtime has operators for, and no quotients or logarithms that could overflow.

    Args:
        decay: `(n, time, ...)`.
        drive: `(n, time, ...)`.
    """
    span = 1
    while span < drive.shape[1]:
        drive = drive + decay * _later(drive, span)
        decay = decay * _later(decay, span)
        span *= 2
    return drive


def _later(x: Tensor, steps: int) -> Tensor:
    """Returns a sequence that many steps later, with zeros before it."""
    return torch.cat([torch.zeros_like(x[:, :steps]), x[:, :-steps]], dim=1)
