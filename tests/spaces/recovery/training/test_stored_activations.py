import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.recovery.lora import with_low_rank
from spaces.recovery.training.stored_activations import GROUP, StoredActivations, StoredBytes, encode
from spaces.stages.torch_artifact import module_digest


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@pytest.fixture
def mlp():
    return seeded(
        lambda: nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
    )


@pytest.fixture
def inputs():
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(1))


def gradients(network, inputs, bits):
    """Returns the outputs, the gradients by name and the bytes of a step; plain autograd's if `bits` is None."""
    network.zero_grad()
    activations = StoredActivations(bits or 32)
    if bits is None:
        outputs = network(inputs)
    else:
        with activations.of(network, inputs):
            outputs = network(inputs)
    outputs.square().sum().backward()
    found = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return outputs.detach(), found, activations.first


@pytest.mark.parametrize("bits", [2, 4, 8])
@given(n=st.integers(1, 300), low=st.floats(-100, 100), span=st.floats(0, 100), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_value_is_off_by_at_most_half_a_step(bits, n, low, span, seed):
    values = low + span * torch.rand(n, generator=torch.Generator().manual_seed(seed))
    codes = encode(values, bits)
    found = codes.values(values.shape, values.dtype)
    n_groups = -(-n // GROUP)
    assert codes.nbytes == n_groups * (GROUP * bits // 8 + 4)
    halves = 2.0**-11 * (abs(low) + 2 * span) + 2.0**-14  # offset and step are float16
    step = span / (2**bits - 1)
    assert (found - values).abs().max() <= step / 2 + 2 * halves


@pytest.mark.parametrize("bits", [2, 4, 8])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_codes_are_packed_and_found_again(bits, data):
    greatest = 2**bits - 1
    drawn = data.draw(st.lists(st.integers(0, greatest), min_size=GROUP - 2, max_size=GROUP - 2))
    values = torch.tensor([0, greatest, *drawn]).float()
    codes = encode(values, bits)
    assert torch.equal(codes.values(values.shape, values.dtype), values)
    assert codes.packed.shape == (1, GROUP * bits // 8)
    assert codes.packed.dtype == torch.uint8


def test_values_beyond_float16_stay_finite():
    values = torch.tensor([[-1e9, 1e9, 1e-12, 0.0]])
    assert encode(values, 4).values(values.shape, values.dtype).isfinite().all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bytes_are_those_of_codes_and_groups(mlp, inputs, bits):
    _, _, found = gradients(mlp, inputs, bits)
    n = 8 * 32 * 3  # into GELU, out of it and into the next layer, out of Tanh
    assert found.exact == 4 * n
    assert found.stored == n * bits / 8 + n / GROUP * 4
    assert mlp[0].weight.grad is not None  # of the inputs, which count nowhere


def test_a_shared_tensor_counts_once(inputs):
    relu = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3)
    )  # the result, for ReLU and the next layer
    _, _, found = gradients(relu, inputs, 8)
    assert found == StoredBytes(4 * 256, 256 + 256 // GROUP * 4)


def test_at_32_bits_gradients_are_those_of_autograd(mlp, inputs, tiny):
    for network, batch in ((mlp, inputs), (tiny().eval(), torch.rand(5, 1, 8, 8))):
        outputs, plain, _ = gradients(network, batch, None)
        again, found, stored = gradients(network, batch, 32)
        assert torch.equal(outputs, again)
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[name], plain[name]) for name in plain)
        assert stored.exact == stored.stored > 0


def test_fewer_bits_change_gradients_more_and_outputs_never(mlp, inputs):
    outputs, plain, _ = gradients(mlp, inputs, None)
    errors = []
    for bits in (8, 4, 2):
        again, found, _ = gradients(mlp, inputs, bits)
        assert torch.equal(outputs, again)
        errors.append(sum(float((found[n] - plain[n]).norm()) for n in plain))
        assert torch.equal(found["4.bias"], plain["4.bias"])  # needs no activation
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: with_low_rank(net, 2, seed=0)])
def test_weights_and_inputs_stay_exact(inputs, wrap):
    """In a chain of linear layers the gradient of the input needs weights alone."""
    chain = wrap(seeded(lambda: nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3))))
    for name, parameter in chain.named_parameters():
        parameter.requires_grad_("bias" in name)
        if name.endswith(".b"):
            parameter.data += 0.1
    batch = inputs.clone().requires_grad_()
    results = []
    for bits in (None, 2):
        batch.grad = None
        _, _, stored = gradients(chain, batch, bits)
        results.append(batch.grad.clone())
    assert torch.equal(*results)
    assert stored == StoredBytes(0, 0)


def test_whole_numbers_and_statistics_stay_exact():
    net = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.LayerNorm(256),
        )
    )
    images = torch.rand(4, 1, 8, 8)
    _, _, found = gradients(net, images, 4)
    indices, statistics = 8 * 4 * 256, 4 * (16 + 16 + 4 + 4)
    activations = 4 * 16 * 64 * 2 + 4 * 256  # into BatchNorm, pooling and LayerNorm
    assert found.exact == 4 * activations + indices + statistics
    assert found.stored == activations // 2 + activations // GROUP * 4 + indices + statistics


@pytest.mark.parametrize("bits", [2, 8])
def test_layers_that_work_in_place_get_their_results(bits, inputs):
    def make(inplace):
        return seeded(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(inplace), nn.Linear(32, 3)))

    (_, some, _), (_, others, _) = (gradients(make(inplace), inputs, bits) for inplace in (True, False))
    assert all(torch.equal(some[name], others[name]) for name in some)


def test_only_the_first_step_is_counted(mlp, inputs):
    activations = StoredActivations(4)
    for batch in (inputs, inputs[:2]):
        before = module_digest(mlp)
        with activations.of(mlp, batch):
            mlp(batch)
        assert module_digest(mlp) == before
    assert activations.first.exact == 4 * 8 * 32 * 3


def test_hooks_on_parametrized_weights_are_gone_afterwards(inputs):
    changed = with_low_rank(nn.Linear(16, 4), 2, seed=0)
    with StoredActivations(4).of(changed, inputs):
        changed(inputs)
    assert not any(part._forward_hooks for part in changed.modules())
    assert np.isfinite(changed(inputs).detach().numpy()).all()


class Sequences(nn.Module):
    """What language models are made of, with tokens as inputs."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(9, 32)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.recurrent = nn.GRU(32, 32, batch_first=True)

    def forward(self, x):
        return self.recurrent(self.block(self.tokens(x)))[0]


def test_attention_and_recurrence_are_trained_on_rounded_activations():
    net, batch = seeded(Sequences), torch.arange(24).view(2, 12) % 9
    outputs, plain, _ = gradients(net, batch, None)
    again, found, stored = gradients(net, batch, 8)
    assert torch.equal(outputs, again)
    assert found.keys() == plain.keys()
    assert stored.stored < stored.exact / 2
    for name, value in plain.items():
        assert (found[name] - value).norm() < 0.1 * value.norm(), name
