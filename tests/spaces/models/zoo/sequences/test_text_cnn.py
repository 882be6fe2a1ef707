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
