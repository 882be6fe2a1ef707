"""Several LoRA adapters: whose examples each gets, and what is merged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spaces.errors import StageError
from spaces.recovery.adapters import merged_adapters, packed, parts_of_split, unpacked, updates_of
from spaces.recovery.knobs import check_weights
from spaces.recovery.lora import SCALE, merged, with_low_rank
from spaces.recovery.recover import RecoverStage
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import module_digest

VALUES = {"epochs": 1, "batch_size": 15, "learning_rate": 0.05, "augmentation": "none", "lora_rank": 2}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(24, 5)).eval()


def trained(net, seed):
    """A network with an adapter of random factors."""
    changed = with_low_rank(net, 2, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in changed.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return changed


@given(weights=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_the_merged_weight_is_the_sum(weights):
    net = network()
    adapters = [trained(net, seed) for seed in range(len(weights))]
    result = merged_adapters(net, list(zip(weights, map(updates_of, adapters), strict=True))).state_dict()
    low_ranks = [adapter[3].parametrizations.weight[0] for adapter in adapters]
    wanted = net[3].weight + sum(w * SCALE * p.b @ p.a for w, p in zip(weights, low_ranks, strict=True))
    torch.testing.assert_close(result["3.weight"], wanted, rtol=1e-4, atol=1e-4)
    assert result.keys() == net.state_dict().keys()
    for name in ("0.bias", "1.running_mean", "3.bias"):
        assert torch.equal(result[name], net.state_dict()[name])


def test_one_weight_of_one_is_that_adapter_bit_by_bit():
    net = network()
    adapters = [trained(net, seed) for seed in range(3)]
    for one, adapter in enumerate(adapters):
        weights = [float(i == one) for i in range(3)]
        result = merged_adapters(net, list(zip(weights, map(updates_of, adapters), strict=True)))
        assert module_digest(result) == module_digest(merged(adapter, net))


def test_an_adapter_as_bytes():
    adapter = trained(network(), 0)
    updates, notes = unpacked(packed(adapter, {"seconds": 0.5}))
    assert notes == {"seconds": 0.5}
    for name, update in updates_of(adapter).items():
        assert torch.equal(updates[name], update)


@given(
    n=st.integers(1, 5), labels=st.lists(st.integers(0, 4), min_size=40, max_size=60), size=st.integers(1, 50)
)
def test_each_adapter_gets_the_examples_of_its_classes(n, labels, size):
    labels = np.array([*range(5), *range(5), *labels])
    split = ArraySplit(np.arange(len(labels), dtype=np.float32)[:, None], labels)
    parts = parts_of_split(split, n)
    found = [list(part.batches(size)) for part in parts]
    rows = [np.concatenate([x[:, 0] for x, _ in batches]) for batches in found]
    assert sorted(np.concatenate(rows)) == list(range(len(labels)))
    for part, batches, own in zip(parts, found, rows, strict=True):
        assert len(part) == len(own)
        assert max(len(y) for _, y in batches) <= size
        assert (labels[own.astype(int)] == np.concatenate([y for _, y in batches])).all()
        limited = [y for _, y in part.batches(size, limit=3)]
        assert sum(map(len, limited)) == min(3, len(part))
    classes = [set(labels[own.astype(int)]) for own in rows]
    assert all(a.isdisjoint(b) for i, a in enumerate(classes) for b in classes[:i])
    assert len({part.digest for part in parts}) == n


def test_other_labels_are_cut_into_runs():
    split = ArraySplit(np.zeros((10, 2), np.float32), np.arange(20).reshape(10, 2))
    assert [part.rows.tolist() for part in parts_of_split(split, 3)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_too_many_adapters_are_refused():
    split = ArraySplit(np.zeros((10, 2), np.float32), np.arange(10) % 2)
    with pytest.raises(StageError, match="at most 2, the number of classes, not 3"):
        parts_of_split(split, 3)
    one = ArraySplit(np.zeros((3, 2), np.float32), np.array([0, 0, 1]))
    with pytest.raises(StageError, match="at least 2 examples for each, but one gets 1"):
        parts_of_split(one, 2)


@pytest.fixture
def context(split, dense):
    return StageContext(None, Cache(), train=split, teacher=dense, accelerator="cpu")


def test_the_stage_merges_what_it_trained_once(student, context, monkeypatch):
    from spaces.recovery import session

    trainings, train = [], session.train
    monkeypatch.setattr(session, "train", lambda *a, **k: trainings.append(k["key"]) or train(*a, **k))
    stage = RecoverStage(threads=1)
    outcomes = {
        weights: stage.apply(student, {**VALUES, "adapters": 2, "merge_weights": weights}, context)
        for weights in ((), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.25, 0.75))
    }
    assert len(trainings) == 2
    states = {weights: made.model.state_dict() for weights, made in outcomes.items()}
    assert outcomes[()].digest == outcomes[0.5, 0.5].digest
    assert len({made.digest for made in outcomes.values()}) == 4
    for name, first in states[1.0, 0.0].items():
        mixed = 0.25 * first + 0.75 * states[0.0, 1.0][name]
        torch.testing.assert_close(states[0.25, 0.75][name], mixed.to(first.dtype), rtol=1e-4, atol=1e-5)
    notes = outcomes[()].notes["recover"]
    assert [n["adapter"] for n in notes["adapters"]] == [0, 1]
    assert notes["examples"] == sum(n["examples"] for n in notes["adapters"]) == len(context.train)
    assert [n["adapter"] for n in outcomes[0.0, 1.0].notes["recover"]["adapters"]] == [1]


def test_weights_of_another_number_are_refused(student, context):
    stage = RecoverStage(threads=1)
    with pytest.raises(StageError, match=r"a weight for each of recover.adapters=3, but has 2"):
        stage.canonical(student, {**VALUES, "adapters": 3, "merge_weights": (0.5, 0.5)}, context)
    with pytest.raises(StageError, match="a weight for each"):
        stage.check(
            student,
            {"epochs": (1,), "lora_rank": (2,), "adapters": (3,), "merge_weights": ((0.5, 0.5),)},
            context,
        )
    with pytest.raises(StageError, match="at most"):
        stage.check(student, {"epochs": (1,), "lora_rank": (2,), "adapters": (16,)}, context)
    check_weights((2, 3), ((0.5, 0.5),))


def test_without_lora_there_are_no_adapters(student, context):
    stage = RecoverStage(threads=1)
    plain = {**VALUES, "lora_rank": 0}
    more = {**plain, "adapters": 2, "merge_weights": (0.25, 0.75)}
    assert stage.canonical(student, more, context) == stage.canonical(student, plain, context)
    domains = {"epochs": (1,), "adapters": (1, 2), "merge_weights": ((), (0.25, 0.75))}
    reasons = stage.empty_knobs(student, domains, context)
    assert reasons["adapters"] == "lora_rank is 0: without LoRA there are no adapters"
