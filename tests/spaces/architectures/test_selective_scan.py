import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.architectures.selective_scan import Mamba, scan


@given(steps=st.integers(1, 33), seed=st.integers(0, 9))
def test_the_scan_is_the_recurrence(steps, seed):
    generator = torch.Generator().manual_seed(seed)
    decay, drive = (torch.rand(2, steps, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    states, state = [], torch.zeros(2, 3, dtype=torch.float64)
    for t in range(steps):
        state = decay[:, t] * state + drive[:, t]
        states.append(state)
    torch.testing.assert_close(scan(decay, drive), torch.stack(states, 1))


def test_an_output_depends_on_no_later_token():
    torch.manual_seed(0)
    layer, x = Mamba(6), torch.randn(1, 12, 6)
    changed = x.clone()
    changed[:, 7:] = 0
    before, after = layer(x), layer(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7] - after[:, 7]).abs().max() > 1e-4


def test_untrained_step_sizes_are_within_their_bounds():
    steps = torch.nn.functional.softplus(Mamba(64).dt_proj.bias)
    assert 0.9e-3 < steps.min() < 0.01 < steps.max() < 0.11
