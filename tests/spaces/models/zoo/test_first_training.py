import numpy as np
import pytest
import torch
from torch import nn

from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.zoo.first_training import FirstTrainedModel, Recipe, train
from spaces.stages.array_split import ArraySplit


class Linear(FirstTrainedModel):
    """Learns which of two values is larger."""

    name = "linear"

    def __init__(self, checkpoint=None, recipe=Recipe(3, 16, 0.1)):  # noqa: B008 (frozen)
        super().__init__(checkpoint, (2,), recipe)

    def build(self):
        return nn.Linear(2, 2)


def pairs(n=64, labels=None):
    x = np.random.default_rng(0).standard_normal((n, 2)).astype(np.float32)
    return ArraySplit(x, (x[:, 1] > x[:, 0]).astype(np.int64) if labels is None else labels)


def share_right(artifact, split):
    with torch.no_grad():
        return (artifact.model(torch.from_numpy(split.inputs)).argmax(1).numpy() == split.labels).mean()


def test_the_network_learns_is_in_eval_mode_and_is_stored_under_its_name(tmp_path):
    artifact = Linear(recipe=Recipe(20, 16, 0.1)).load(LoadContext(pairs(), tmp_path))
    assert share_right(artifact, pairs()) > 0.9
    assert not artifact.model.training
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("linear-")


def test_checkpoints_depend_on_every_part_of_the_recipe(tmp_path):
    recipes = [Recipe(3, 16, 0.1), Recipe(4, 16, 0.1), Recipe(3, 8, 0.1), Recipe(3, 16, 0.2)]
    digests = {Linear(recipe=r).load(LoadContext(pairs(), tmp_path)).digest for r in recipes}
    assert len(digests) == len(list(tmp_path.iterdir())) == len(recipes)


def test_the_seed_decides_the_order_of_examples(tmp_path):
    def trained(seed):
        module = nn.Linear(2, 2)
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        train(module, pairs(), Recipe(1, 16, 0.1), seed)
        return module.weight.detach().numpy()

    np.testing.assert_array_equal(trained(0), trained(0))
    assert not np.array_equal(trained(0), trained(1))


def test_a_last_batch_of_one_example_does_not_fail_in_batch_norm():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    train(module, pairs(17), Recipe(1, 16), 0)
    assert module[1].num_batches_tracked == 1


def test_examples_of_another_shape_raise_before_training(tmp_path):
    split = ArraySplit(np.zeros((4, 3), np.float32), np.zeros(4, np.int64))
    with pytest.raises(InputError, match=r"model.input_shape is \[2\], but the task's examples are \[3\]"):
        Linear().load(LoadContext(split, tmp_path))


@pytest.mark.parametrize(("label", "labels_text"), [(2, "0..2"), (-1, "-1..1")])
def test_labels_without_an_output_raise_before_training(tmp_path, label, labels_text):
    labels = np.arange(8) % 2
    labels[3] = label
    with pytest.raises(
        InputError, match=f"2 outputs, but the task's labels lie in {labels_text}: model.n_classes"
    ):
        Linear().load(LoadContext(pairs(8, labels), tmp_path))


@pytest.mark.parametrize("split", [None, pairs(0)])
def test_an_empty_train_split_raises(tmp_path, split):
    with pytest.raises(InputError, match="linear is trained on first use, but the task has no train split"):
        Linear().load(LoadContext(split, tmp_path))


@pytest.mark.parametrize(
    ("values", "key"),
    [((0,), "epochs"), ((1.5,), "epochs"), ((1, 0), "batch_size"), ((1, 8, 0.0), "learning_rate")],
)
def test_invalid_recipes_name_the_key(values, key):
    with pytest.raises(ConfigError, match=rf"model\.{key} must be"):
        Recipe(*values)


class Shifted(Linear):
    """The same with a network whose `repr` does not show an argument that its outputs depend on."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def build(self):
        return Shift(self.shift)


class Shift(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift = shift
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x + self.shift)


def test_networks_that_differ_in_an_argument_do_not_share_a_checkpoint(tmp_path):
    first, second = (Shifted(shift).load(LoadContext(pairs(), tmp_path)).model for shift in (0.0, 5.0))
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.equal(first.layer.weight, second.layer.weight)
