import io

import pytest
import torch
from torch import nn

from spaces.recovery.training.checkpoints import Checkpoints
from spaces.recovery.training.curve import Curve
from spaces.stages.cache import Cache


@pytest.fixture
def make():
    def make():
        torch_state = torch.random.get_rng_state()
        module = nn.Linear(3, 2)
        torch.random.set_rng_state(torch_state)
        return module, torch.optim.AdamW(module.parameters(), lr=0.1)

    return make


def step(module, optimizer):
    optimizer.zero_grad()
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()


def test_a_state_is_restored(make, tmp_path):
    (module, optimizer), (other, others) = make(), make()
    step(module, optimizer)
    Checkpoints(Cache(tmp_path), "key").keep(module, optimizer, Curve((0.5,), (0.1,)))
    assert Checkpoints(Cache(tmp_path), "key").restore(other, others) == Curve((0.5,), (0.1,))
    for pair in ((module, optimizer), (other, others)):
        step(*pair)
    assert torch.equal(module.weight, other.weight)


def test_nothing_kept_leaves_things_alone(make):
    module, optimizer = make()
    before = module.weight.detach().clone()
    assert Checkpoints(Cache(), "key").restore(module, optimizer) == Curve()
    assert torch.equal(module.weight, before)


def test_drop_deletes_the_state(make, tmp_path):
    checkpoints = Checkpoints(Cache(tmp_path), "key")
    checkpoints.keep(*make(), Curve((0.5,), (0.1,)))
    assert len(list(tmp_path.iterdir())) == 1
    checkpoints.drop()
    assert list(tmp_path.iterdir()) == []
    assert checkpoints.restore(*make()) == Curve()


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_checkpoint_that_does_not_fit_is_reported_and_ignored(make, caplog, capsys):
    cache = Cache()
    module, optimizer = make()
    before = module.weight.detach().clone()
    for content in (Code(), {"module": nn.Linear(4, 2).state_dict()}, {"module": {}}, 7):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        cache.keep("training-key.pt", buffer.getvalue())
        assert Checkpoints(cache, "key").restore(module, optimizer) == Curve()
        assert torch.equal(module.weight, before)
    assert caplog.text.count("does not fit") == 4
    assert capsys.readouterr().out == ""


def test_without_a_key_nothing_happens(make, tmp_path):
    checkpoints = Checkpoints(Cache(tmp_path), None)
    checkpoints.keep(*make(), Curve())
    checkpoints.drop()
    assert checkpoints.restore(*make()) == Curve()
    assert list(tmp_path.iterdir()) == []
