"""A hidden unit of an LSTM, GRU or RNN is a channel: its rows in every gate, its columns, and what reads it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.criteria.criterion import Evidence
from spaces.pruning.criteria.registry import BUILT_IN, Criteria
from spaces.pruning.cutting.network_facts import NetworkFacts
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.cut import cut, silenced, widths
from spaces.pruning.groups.find import analyse, channel_groups
from spaces.stages.artifact import InputSpec
from spaces.stages.torch_artifact import torch_artifact
from spaces.stages.torch_file import packed, unpacked

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
SHAPE = (4, 3)
UNITS = 6


class Sequence(nn.Module):
    """A linear layer, a recurrent module, and layers that read its last output and its states."""

    def __init__(self, kind, seed=0, reads="yhc", **options):
        super().__init__()
        torch.manual_seed(seed)
        self.reads, self.batch_first = reads, options.get("batch_first", False)
        self.first, self.rnn = nn.Linear(3, 5), kind(5, UNITS, **options)
        n = options.get("proj_size") or UNITS
        self.y = nn.Linear(n * (1 + options.get("bidirectional", False)), 7)
        self.h, self.c, self.head = nn.Linear(n, 7), nn.Linear(UNITS, 7), nn.Linear(7, 2)

    def forward(self, x):
        x = self.first(x).relu()
        y, states = self.rnn(x if self.batch_first else x.transpose(0, 1))
        y = self.y(y[:, -1] if self.batch_first else y[-1])
        h, c = states if isinstance(states, tuple) else (states, states)
        y = y + self.h(h[-1]) if "h" in self.reads else y
        y = y * self.c(c[0]) if "c" in self.reads and isinstance(states, tuple) else y
        return self.head(y.relu())


class Cells(nn.Module):
    """Two cells, step by step, and a first state of its own."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = kind(3, UNITS), kind(UNITS, 5), nn.Linear(5, 2)
        self.start = nn.Parameter(torch.randn(1, UNITS))

    def forward(self, x):
        start = self.start.expand(len(x), -1)
        a, b = (start, start) if isinstance(self.a, nn.LSTMCell) else start, None
        for t in range(x.shape[1]):
            a = self.a(x[:, t], a)
            b = self.b(a[0] if isinstance(a, tuple) else a, b)
        return self.head(b[0] if isinstance(b, tuple) else b)


class Started(nn.Module):
    """First states as people make them: zeros of a width that is an attribute."""

    def __init__(self):
        super().__init__()
        self.rnn, self.hidden, self.head = nn.LSTM(3, UNITS, batch_first=True), UNITS, nn.Linear(UNITS, 2)

    def forward(self, x):
        zeros = torch.zeros(1, len(x), self.hidden, dtype=x.dtype)
        return self.head(self.rnn(x, (zeros, zeros))[0].mean(1))


class EncoderDecoder(nn.Module):
    """The encoder's states, of both directions, are the decoder's first one."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(3, UNITS, batch_first=True, bidirectional=True)
        self.bridge, self.decoder = nn.Linear(2 * UNITS, UNITS), nn.GRU(3, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 2)

    def forward(self, x):
        h = self.encoder(x)[1]
        h = self.bridge(torch.cat([h[0], h[1]], -1)).tanh()
        return self.head(self.decoder(x, h[None])[0].mean(1))


class Stack(nn.Module):
    """Sums of what two recurrent modules give, into a third."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.LSTM(3, UNITS, batch_first=True) for _ in range(2))
        self.c, self.head = nn.GRU(UNITS, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.c(self.a(x)[0] + self.b(x)[0])[0].mean(1))


def random_cut(groups, seed):
    rng = np.random.default_rng(seed)
    return {
        g.name: np.sort(rng.permutation(g.n_channels)[: rng.integers(1, g.n_channels + 1)]) for g in groups
    }


def check(network, shape, seed=0):
    """A cut network equals the silenced one, costs what was computed, and can be stored."""
    spec = InputSpec(shape)
    dense = torch_artifact(network, spec)
    groups = channel_groups(dense.model, shape)
    kept = random_cut(groups, seed)
    smaller = torch_artifact(cut(dense.model, groups, kept), spec)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = silenced(dense.model, groups, kept)(x), smaller.model(x)
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    counted = total(layer_counts(smaller.model, shape).values())
    assert CutArithmetic(dense.model, groups, shape).counts([len(kept[g.name]) for g in groups]) == counted
    assert unpacked(packed(smaller, dense), dense).digest == smaller.digest
    return groups, smaller.model


options = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 2),
        "bidirectional": st.booleans(),
        "batch_first": st.booleans(),
        "bias": st.booleans(),
    }
)
projections = st.fixed_dictionaries({"proj_size": st.integers(2, UNITS - 1)})
networks = st.one_of(
    st.builds(lambda kind, more: Sequence(kind, **more), st.sampled_from([nn.GRU, nn.RNN]), options),
    st.builds(
        lambda reads, more, projected: Sequence(nn.LSTM, reads=reads, **more, **projected),
        st.sampled_from(["y", "yh", "yc", "yhc"]),
        options,
        st.one_of(st.just({}), projections),
    ),
)


@settings(max_examples=25)
@given(networks, st.integers(0, 2**16))
def test_a_cut_recurrent_network_equals_the_silenced_one(network, seed):
    groups, smaller = check(network, SHAPE, seed)
    left = set(widths(network)) - {layer for g in groups for layer in g.layers}
    unread = {f"{name}.weight" for name in "hc" if name not in network.reads or network.rnn.mode != "LSTM"}
    hidden = {
        f"rnn.{leaf}" for leaf in network.rnn._parameters if leaf.startswith(("weight_ih", "weight_hh"))
    }
    assert left <= {"head.weight"} | unread | (hidden if network.rnn.proj_size else set())
    assert eval(repr(smaller.rnn), vars(nn)).weight_ih_l0.shape == smaller.rnn.weight_ih_l0.shape


@pytest.mark.parametrize(
    "network",
    [
        *(pytest.param(Cells(kind), id=kind.__name__) for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)),
        pytest.param(Started(), id="started"),
        pytest.param(EncoderDecoder(), id="encoder and decoder"),
        pytest.param(Stack(), id="stack"),
        pytest.param(Sequence(nn.RNN, nonlinearity="relu"), id="relu"),
        pytest.param(Sequence(nn.LSTM, num_layers=2, dropout=0.5), id="dropout"),
    ],
)
def test_other_uses_of_recurrent_layers_are_cut(network):
    assert check(network, SHAPE)[0]


def test_all_layers_and_directions_of_a_module_lose_the_same_units():
    network = Sequence(nn.LSTM, reads="y", num_layers=2, bidirectional=True).eval()
    group = next(g for g in channel_groups(network, SHAPE) if g.name == "rnn.weight_ih_l0")
    assert group.n_channels == UNITS
    assert len(group.layers) == 8
    rows = {(s.name, s.axis): s.rows.tolist() for s in group.slices}
    assert rows["rnn.weight_ih_l1_reverse", 0][2] == [2, 8, 14, 20]
    assert rows["rnn.weight_ih_l1", 1][2] == rows["y.weight", 1][2] == [2, 8]
    assert rows["rnn.weight_hh_l0_reverse", 1][2] == [2]
    assert {s.role for s in group.slices if "bias" in s.name} == {"out"}
    smaller = cut(network, [group], {group.name: np.array([1, 4])})
    assert (smaller.rnn.hidden_size, smaller.rnn.input_size, network.rnn.hidden_size) == (2, 5, UNITS)
    x = torch.randn(2, *SHAPE)
    assert smaller.train()(x).shape == (2, 2)


def test_sums_within_a_recurrent_layer_are_no_residual_stream():
    facts = NetworkFacts(Stack().eval(), SHAPE)
    assert facts.residuals == {"a.weight_ih_l0"}
    assert facts.layers[-3:] == ("c.weight_ih_l0", "c.weight_hh_l0", "head.weight")
    assert facts.matching(["c.*"]) == ("c.weight_ih_l0", "c.weight_hh_l0")


@pytest.mark.parametrize("criterion", sorted(set(BUILT_IN) - {"bn_gamma", "random"}))
def test_criteria_score_units(criterion):
    """A unit whose weights are 0 scores least, and the units of the layer before it are told apart."""
    network = Sequence(nn.GRU, reads="y", batch_first=True).eval()
    groups = channel_groups(network, SHAPE)
    unit = 3
    with torch.no_grad():
        for g in groups:
            for part in (s for s in g.slices if g.name == "rnn.weight_ih_l0"):
                rows = torch.from_numpy(part.rows[unit])
                network.get_parameter(part.name).index_fill_(part.axis, rows, 0.0)
    x, labels = torch.randn(20, *SHAPE), torch.arange(20) % 2
    evidence = Evidence(network, groups, x, labels, torch.Generator().manual_seed(0))
    scores = Criteria()[criterion].scores(evidence)
    assert {name: len(values.unique()) > 3 for name, values in scores.items()} == dict.fromkeys(scores, True)
    if criterion != "fpgm":  # a filter of zeros may be far from the others
        assert int(scores["rnn.weight_ih_l0"].argmin()) == unit


def test_projections_are_cut_and_the_units_before_them_named():
    network = Sequence(nn.LSTM, reads="y", proj_size=4, num_layers=2).eval()
    found = analyse(network, SHAPE)
    assert {g.name: g.n_channels for g in found.groups}["rnn.weight_hr_l0"] == 4
    reasons = {layer: left.reason for left in found.left_alone for layer in left.layers}
    assert "proj_size" in reasons["rnn.weight_ih_l1"]


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("weight", ["weight_hh_l0", "weight_ih_l0"])
def test_recurrent_weights_that_are_made_of_others_are_left_alone(norm, weight):
    network = Sequence(nn.LSTM, reads="y", batch_first=True).eval()
    getattr(nn.utils.parametrizations, norm)(network.rnn, weight)
    found = analyse(network.requires_grad_(False), SHAPE)
    reasons = {layer: left.reason for left in found.left_alone for layer in left.layers}
    assert "a weight of rnn is no plain parameter of its module: it is made by" in str(reasons)
    assert {g.name for g in found.groups} >= {"y.weight"}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_recurrent_weights_of_the_older_weight_norm_are_left_alone():
    network = Sequence(nn.LSTM, reads="y", batch_first=True)
    nn.utils.weight_norm(network.rnn, "weight_hh_l0")
    found = analyse(torch_artifact(network, InputSpec(SHAPE)).model, SHAPE)
    assert [g.name for g in found.groups] == ["y.weight"]
    assert "it is made by WeightNorm" in found.left_alone[0].reason
