import numpy as np
import pytest
import torch

from spaces.errors import InputError
from spaces.models.base import LoadContext
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.digits_cnn import DigitsCNN, DigitsCNNModel


class Corners:
    """A split that is easy to learn: the class is the corner that is bright."""

    def __init__(self, n=80, digest="corners"):
        rng = np.random.default_rng(0)
        self.labels = np.arange(n) % 4
        self.images = rng.uniform(0, 0.3, (n, 1, 8, 8)).astype(np.float32)
        for i, label in enumerate(self.labels):
            row, column = 4 * (label // 2), 4 * (label % 2)
            self.images[i, 0, row : row + 4, column : column + 4] += 0.7
        self.digest = digest

    def __len__(self):
        return len(self.labels)

    def batches(self, batch_size, limit=None):
        for start in range(0, len(self), batch_size):
            yield self.images[start : start + batch_size], self.labels[start : start + batch_size]


class TestDigitsCNN(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return DigitsCNNModel(n_classes=4, epochs=2)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(Corners(), tmp_path)


def test_size():
    assert sum(p.numel() for p in DigitsCNN().parameters()) == 24_058


def test_the_network_learns_and_is_trained_once(tmp_path, monkeypatch):
    split = Corners()
    threads = torch.get_num_threads()
    first = DigitsCNNModel(n_classes=4).load(LoadContext(split, tmp_path))
    with torch.no_grad():
        outputs = first.model(torch.from_numpy(split.images))
    assert (outputs.argmax(1).numpy() == split.labels).mean() > 0.95
    assert torch.get_num_threads() == threads
    assert len(list(tmp_path.iterdir())) == 1

    def refuse(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr("spaces.models.zoo.first_training.train", refuse)
    assert DigitsCNNModel(n_classes=4).load(LoadContext(split, tmp_path)).digest == first.digest


def test_checkpoints_depend_on_data_seed_and_recipe(tmp_path):
    loads = [(2, Corners(), 0), (2, Corners(digest="other"), 0), (2, Corners(), 1), (3, Corners(), 0)]
    for epochs, split, seed in loads:
        DigitsCNNModel(n_classes=4, epochs=epochs).load(LoadContext(split, tmp_path, seed))
    assert len(list(tmp_path.iterdir())) == len(loads)


def test_training_is_reproducible(tmp_path):
    digests = {
        DigitsCNNModel(n_classes=4, epochs=2).load(LoadContext(Corners(), tmp_path / name)).digest
        for name in "ab"
    }
    assert len(digests) == 1


def test_a_damaged_checkpoint_is_replaced(tmp_path):
    model = DigitsCNNModel(n_classes=4, epochs=2)
    first = model.load(LoadContext(Corners(), tmp_path))
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert model.load(LoadContext(Corners(), tmp_path)).digest == first.digest


def test_a_users_checkpoint_is_loaded(tmp_path):
    net = DigitsCNN(3)
    torch.save(net.state_dict(), tmp_path / "mine.pt")
    artifact = DigitsCNNModel(str(tmp_path / "mine.pt"), n_classes=3).load(LoadContext(None, tmp_path))
    assert torch.equal(artifact.model.linear.weight, net.linear.weight)


@pytest.mark.parametrize("split", [None, Corners(0)])
def test_an_empty_train_split_raises(tmp_path, split):
    with pytest.raises(InputError, match="no train split"):
        DigitsCNNModel().load(LoadContext(split, tmp_path))
