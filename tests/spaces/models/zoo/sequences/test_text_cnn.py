import numpy as np
import pytest
import torch

from evaluators.task.data.named_split import NamedSplit
from spaces.errors import ConfigError, InputError
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.models.testing import ModelSourceConformance
from spaces.models.zoo.sequences.text_cnn import TextCNN, TextCNNModel
from spaces.stages.array_split import ArraySplit
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext


def texts(n=96, length=12):
    """Ids 1 to 9, then zeros; the class is whether there are more 9s than 8s."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 10, (n, length))
    ids[np.arange(length) >= rng.integers(4, length + 1, n)[:, None]] = 0
    return ids, ((ids == 9).sum(1) > (ids == 8).sum(1)).astype(np.int64)


def split():
    return ArraySplit(*texts())


def named_split():
    ids, labels = texts()
    return NamedSplit(
        {"ids": ArraySplit(ids, labels), "mask": ArraySplit((ids > 0).astype(np.int64), labels)}
    )


def small(**more):
    return TextCNNModel(
        **{"input_shape": [12], "vocabulary_size": 10, "widths": [16], "kernel_size": 3} | more
    )


NAMED = {"ids": [12], "mask": [12]}


class TestTextCNN(ModelSourceConformance):
    @pytest.fixture
    def source(self):
        return small(epochs=1)

    @pytest.fixture
    def context(self, tmp_path):
        return LoadContext(split(), tmp_path)


@pytest.mark.parametrize("widths", [[], [16], [16, 8]])
def test_the_network_learns(tmp_path, widths):
    artifact = small(widths=widths, epochs=40).load(LoadContext(split(), tmp_path))
    with torch.no_grad():
        outputs = artifact.model(torch.from_numpy(split().inputs))
    assert (outputs.argmax(1).numpy() == split().labels).mean() > 0.9


def test_the_end_of_a_text_does_not_count():
    net = TextCNN(2, 10, 4, (6,), 3).eval()
    short = torch.tensor([[3, 5, 7]])
    longer = torch.tensor([[3, 5, 7, 0, 0]])
    torch.testing.assert_close(net(short), net(longer))
    torch.testing.assert_close(net(short), net(torch.tensor([[3, 5, 7, 9]]), torch.tensor([[1, 1, 1, 0]])))


def test_each_token_is_classified_from_both_sides(tmp_path):
    net = TextCNN(3, 10, 4, (6, 6), 3, per_step=True).eval()
    short, longer = net(torch.tensor([[3, 5, 7]])), net(torch.tensor([[3, 5, 7, 0, 0]]))
    assert short.shape == (1, 3, 3)
    torch.testing.assert_close(short, longer[:, :3])  # a padded text is the text alone
    grown = net(torch.tensor([[3, 5, 7, 9]]))
    assert not torch.allclose(short[:, 2], grown[:, 2])  # what comes later counts
    ids, _ = texts()
    labels = np.where(ids > 0, np.roll(ids, -1, axis=1) > 5, -1).astype(np.int64)
    labels[:, -1] = 0
    context = LoadContext(ArraySplit(ids, labels), tmp_path, loss="tokens")
    artifact = small(per_step=True, epochs=20).load(context)
    with torch.no_grad():
        found = artifact.model(torch.from_numpy(ids)).argmax(2).numpy()
    assert (found == labels)[:, :-1][labels[:, :-1] >= 0].mean() > 0.95


@pytest.mark.parametrize(
    ("per_step", "labels", "message"),
    [
        (False, np.zeros((96, 12), np.int64), r"yields \(2,\).*labels are \(12,\).*class of each step or position is needed"),
        (True, np.zeros(96, np.int64), r"yields \(12, 2\).*labels are \(\).*class of an example is needed"),
    ],
)  # fmt: skip
def test_labels_of_steps_and_of_texts_are_not_confused(tmp_path, per_step, labels, message):
    context = LoadContext(
        ArraySplit(texts()[0], labels), tmp_path, loss="tokens" if labels.ndim > 1 else "cross_entropy"
    )
    with pytest.raises(InputError, match=message):
        small(per_step=per_step).load(context)


@pytest.mark.parametrize("named", [False, True])
def test_whole_numbers_reach_the_file_by_name(tmp_path, named):
    import onnxruntime

    data = named_split() if named else split()
    source = small(epochs=1, **({"input_shape": NAMED} if named else {}))
    artifact = source.load(LoadContext(data, tmp_path))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    session = onnxruntime.InferenceSession(exported.onnx_bytes)
    given = {i.name: i.type for i in session.get_inputs()}
    assert set(given.values()) == {"tensor(int64)"}
    assert len(given) == 1 + named
    inputs, _ = next(iter(data.batches(200)))
    found = session.run(None, exported.input.feeds(inputs))[0]
    arguments = inputs if named else {"ids": inputs}
    with torch.no_grad():
        wanted = artifact.model(**{name: torch.from_numpy(array) for name, array in arguments.items()})
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_ids_beyond_the_vocabulary_raise(tmp_path):
    with pytest.raises(
        InputError, match=r"token ids reach 9, but model\.vocabulary_size is 9: it must be at least 10"
    ):
        small(vocabulary_size=9).load(LoadContext(split(), tmp_path))


def test_other_inputs_raise(tmp_path):
    with pytest.raises(
        InputError,
        match=r"model\.input_shape is \{'input': \[12\]\}, but the task's examples are \{'ids': \[12\]",
    ):
        small().load(LoadContext(named_split(), tmp_path))
    with pytest.raises(InputError, match=r"model\.input_shape is \[7\], but the task's examples are \[12\]"):
        small(input_shape=[7]).load(LoadContext(split(), tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 2}, r"model\.kernel_size must be an odd whole number"),
        ({"widths": [0]}, r"model\.widths\[0\] must be a whole number from 1 on"),
        ({"vocabulary_size": 0}, r"model\.vocabulary_size must be a whole number"),
        ({"input_shape": {"ids": [12], "masks": [12]}}, "name the inputs ids and mask"),
    ],
)
def test_impossible_settings_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        small(**settings)
