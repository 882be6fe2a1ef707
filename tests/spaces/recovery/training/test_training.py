import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from spaces.errors import ConfigError, StageError, StopTrialError
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.training import train
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import module_digest

RECIPE = Recipe(epochs=3, batch_size=8, augmentation="crop", threads=1)


@pytest.fixture
def context():
    return StageContext(None, Cache(), seed=3, accelerator="cpu")


@pytest.fixture
def run(tiny, split, context):
    """Trains a fresh network; returns it and the curve."""

    def run(recipe=RECIPE, context=context, split=split, module=None, loss=None, key="key", **others):
        module = tiny() if module is None else module
        loss = loss or LabelLoss()
        curve = train(module, split, recipe, loss=loss, context=context, stage="test", key=key, **others)
        return module, curve

    return run


class Watch:
    """Runs the network and draws random numbers, as a watch may do; stops the trial after some epochs."""

    def __init__(self, stop_after=None):
        self.epochs, self.stop_after = [], stop_after

    def epoch(self, stage, epoch, n_epochs, module):
        assert not module.training
        assert {p.device.type for p in module.parameters()} == {"cpu"}
        self.epochs.append((stage, epoch, n_epochs))
        with torch.no_grad():
            module(torch.randn(2, 1, 8, 8))  # draws from the global generator
        if epoch == self.stop_after:
            raise StopTrialError("enough")


def test_it_learns(run, split):
    module, curve = run(replace(RECIPE, epochs=12))
    assert len(curve.losses) == 12
    assert curve.losses[-1] < curve.losses[0]
    assert not module.training
    outputs = module(torch.from_numpy(split.inputs))
    assert (outputs.argmax(1).numpy() == split.labels).mean() > 0.8


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_again_whatever_happened_to_the_global_generator(run, threads):
    recipe = replace(RECIPE, epochs=1, batch_size=23, threads=threads)
    first, curve = run(recipe)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again, same = run(recipe)
    assert module_digest(again) == module_digest(first)
    assert same == curve
    assert torch.equal(torch.get_rng_state(), before)


def test_everything_that_the_result_depends_on_changes_it(run, context):
    digests = {module_digest(run()[0])}
    digests.add(module_digest(run(context=replace(context, seed=4))[0]))
    digests.add(module_digest(run(replace(RECIPE, batch_size=9))[0]))
    digests.add(module_digest(run(replace(RECIPE, schedule="linear"))[0]))
    digests.add(module_digest(run(replace(RECIPE, momentum=0.5))[0]))
    digests.add(module_digest(run(replace(RECIPE, weight_decay=0.0))[0]))
    digests.add(module_digest(run(replace(RECIPE, optimizer="adamw"))[0]))
    assert len(digests) == 7


def test_a_watch_is_called_every_epoch_and_changes_nothing(run, context):
    watch = Watch()
    watched, curve = run(context=replace(context, watch=watch))
    alone, same = run()
    assert watch.epochs == [("test", 1, 3), ("test", 2, 3), ("test", 3, 3)]
    assert module_digest(watched) == module_digest(alone)
    assert curve == same


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_training_is_resumed_bit_identically(run, context, tmp_path, optimizer, stop_after):
    recipe = replace(RECIPE, optimizer=optimizer)
    with pytest.raises(StopTrialError):
        run(recipe, replace(context, cache=Cache(tmp_path), watch=Watch(stop_after)))
    watch = Watch()
    resumed, curve = run(
        recipe, replace(context, cache=Cache(tmp_path), watch=watch)
    )  # a new cache object, as in another process
    whole, same = run(recipe)
    assert [epoch for _, epoch, _ in watch.epochs] == list(range(stop_after + 1, 4))
    assert module_digest(resumed) == module_digest(whole)
    assert curve == same
    assert list(tmp_path.iterdir()) == []


def test_without_a_key_nothing_is_kept(run, context, tmp_path):
    with pytest.raises(StopTrialError):
        run(context=replace(context, cache=Cache(tmp_path), watch=Watch(1)), key=None)
    assert list(tmp_path.iterdir()) == []


def test_surroundings_are_as_before(run, context):
    torch.set_num_threads(2)
    module, _ = run()
    with pytest.raises(StopTrialError):
        run(context=replace(context, watch=Watch(1)), module=module)
    assert torch.get_num_threads() == 2
    assert all(p.is_contiguous() and p.grad is None and p.requires_grad for p in module.parameters())
    assert not module.training


def test_frozen_parameters_stay_with_their_statistics(run, tiny):
    module, before = tiny(), tiny().state_dict()
    module.conv1.requires_grad_(False)
    factors = {"bn1.weight": 0.0, "bn1.bias": 0.0, "linear.weight": 0.0}
    run(module=module, factors=factors)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        "conv2.weight", "conv3.weight", "conv3.bias", "linear.bias",
        *(f"bn2.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    }  # fmt: skip
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ["conv1.weight"]


def test_factors_scale_the_first_step(run, tiny, split):
    recipe = Recipe(1, 45, momentum=0.0, weight_decay=0.0, schedule="constant", threads=1)
    before = tiny().linear.weight
    whole, half = (run(recipe, factors={"linear.weight": f})[0].linear.weight - before for f in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2)


def test_hooks_see_every_step(run):
    calls = []
    after = {
        name: partial(lambda name, *at: calls.append((name, *at)), name) for name in ("backward", "step")
    }
    run(replace(RECIPE, epochs=2, batch_size=15), after_backward=after["backward"], after_step=after["step"])
    assert calls == [(name, step, 6) for step in range(6) for name in ("backward", "step")]


def test_changes_made_by_hooks_are_kept(run, tiny):
    module = tiny()

    def pull(step, n_steps):
        module.linear.bias.grad.zero_()

    def push(step, n_steps):
        with torch.no_grad():
            module.conv3.bias.zero_()

    before = module.linear.bias.detach().clone()
    run(replace(RECIPE, weight_decay=0.0), module=module, after_backward=pull, after_step=push)
    assert torch.equal(module.linear.bias, before)
    assert not module.conv3.bias.any()


class Shifted(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, outputs, batch):
        return nn.functional.cross_entropy(outputs + self.shift, batch.labels)


def test_the_parameters_of_a_loss_are_trained_and_resumed(run, context, tmp_path):
    whole, resumed = Shifted(), Shifted()
    module, _ = run(loss=whole)
    with pytest.raises(StopTrialError):
        run(context=replace(context, cache=Cache(tmp_path), watch=Watch(2)), loss=Shifted())
    again, _ = run(context=replace(context, cache=Cache(tmp_path)), loss=resumed)
    assert whole.shift.any()
    assert torch.equal(whole.shift, resumed.shift)
    assert module_digest(again) == module_digest(module)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(17, 8, 2), (18, 8, 3), (3, 64, 1), (2, 2, 1)])
def test_a_last_batch_of_one_is_left_out(run, split, n, batch_size, steps):
    steps_run = []
    few = ArraySplit(split.inputs[:n], split.labels[:n])
    run(Recipe(1, batch_size, threads=1), split=few, after_step=lambda *at: steps_run.append(at))
    assert steps_run == [(step, steps) for step in range(steps)]


def test_too_few_examples_raise(run, split):
    with pytest.raises(StageError, match=r"1 example.*task\.train"):
        run(split=ArraySplit(split.inputs[:1], split.labels[:1]))


def test_a_loss_that_is_not_finite_raises_with_rate_and_epoch(run):
    with pytest.raises(StageError, match=r"not finite in epoch \d of 3, with learning_rate=1e\+20"):
        run(replace(RECIPE, learning_rate=1e20))


def test_weights_that_are_not_finite_raise(run):
    def spoil(step, n_steps):
        if step == n_steps - 1:
            raise_module.linear.bias.data.fill_(np.nan)

    raise_module = copy.deepcopy(run()[0])
    with pytest.raises(StageError, match=r"linear\.bias"):
        run(module=raise_module, after_step=spoil, key="other")


def test_an_unavailable_accelerator_raises(run, context):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="finds no GPU"):
        run(context=replace(context, accelerator="cuda"))


def test_a_curve_is_rows_for_json(run):
    _, curve = run()
    rows = curve.as_json()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == list(curve.losses)
    assert rows[-1]["learning_rate"] < 0.03 / 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_an_accelerator_trains_alike_and_hands_the_network_back(run, context, tmp_path):
    on_gpu = replace(context, accelerator="cuda", cache=Cache(tmp_path))
    watch, loss = Watch(2), Shifted()
    with pytest.raises(StopTrialError):
        run(context=replace(on_gpu, watch=watch), loss=Shifted())
    module, curve = run(context=on_gpu, loss=loss)
    wanted, same = run(loss=Shifted())
    assert {p.device.type for p in (*module.parameters(), *module.buffers(), *loss.parameters())} == {"cpu"}
    assert curve.losses == pytest.approx(same.losses, rel=0.05)  # dropout draws otherwise there
    assert {name: tuple(v.shape) for name, v in module.state_dict().items()} == {
        name: tuple(v.shape) for name, v in wanted.state_dict().items()
    }
