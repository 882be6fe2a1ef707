import copy

import pytest
import torch
from torch import Tensor, nn

from spaces.recovery.training.graphed import Graphed

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Waits(nn.Linear):
    """A network whose operators cannot be recorded: it reads a value on the way."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * float(inputs.sum() > -1e9)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).train()


def trained(module: nn.Module, forward, sizes: tuple[int, ...], device: str) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for size in sizes:
        optimizer.zero_grad()
        inputs, labels = torch.randn(size, 3, 8, 8).to(device), torch.randint(5, (size,)).to(device)
        loss = nn.functional.cross_entropy(forward(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
        del loss  # what holds its graph keeps the next pass from being recorded
    return losses


def test_without_a_gpu_the_network_is_called_as_it_is():
    module = network()
    forward = Graphed(module)
    inputs = torch.randn(4, 3, 8, 8)
    for _ in range(3):
        assert torch.equal(forward(inputs), copy.deepcopy(module)(inputs))
    assert "forward" not in vars(module)


@gpu
def test_recorded_passes_train_like_others_also_with_a_smaller_last_batch():
    sizes = (16, 16, 16, 7, 16, 7, 16)
    plain, recorded = network().cuda(), network().cuda()
    forward = Graphed(recorded)
    assert trained(recorded, forward, sizes, "cuda") == pytest.approx(
        trained(plain, plain, sizes, "cuda"), rel=1e-3
    )
    assert forward._call is not recorded
    assert "forward" not in vars(recorded)
    for one, other in zip(recorded.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@gpu
@pytest.mark.parametrize("hooked", [False, True])
def test_what_cannot_be_recorded_runs_as_it_is(hooked):
    module: nn.Module = Waits(6, 2).cuda()
    if hooked:
        module = nn.Sequential(nn.Linear(6, 2)).cuda()
        module[0].register_forward_hook(lambda *_: None)
    forward = Graphed(module)
    inputs = torch.randn(4, 6, device="cuda")
    for _ in range(3):
        torch.testing.assert_close(forward(inputs), module(inputs))
    assert forward._call is module
