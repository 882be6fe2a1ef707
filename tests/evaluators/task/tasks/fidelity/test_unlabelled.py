"""Examples without labels: conformance, labels from a network, and bad input."""

import numpy as np
import pytest

from evaluators.task.data.images.image_folder import ImageFolder
from evaluators.task.data.npz import NpzData
from evaluators.task.tasks.fidelity.unlabelled import UnlabelledTask
from evaluators.task.tasks.testing import TaskConformance
from evaluators.testing import model_from_text
from spaces.errors import ConfigError, InputError
from spaces.stages.output_spec import OutputSpec

ROWS = model_from_text("g (float[n,4] x) => (float[n,4] y) { y = Neg(x) }", {})
SHARES = model_from_text("g (float[n,4] x) => (float[n,4] y) { y = Softmax<axis=1>(x) }", {})
MASKS = model_from_text("g (float[n,3,2,2] x) => (float[n,3,2,2] y) { y = Neg(x) }", {})


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(40, 4)).astype(np.float32))
    np.savez(tmp_path / "images.npz", x=rng.normal(size=(40, 3, 2, 2)).astype(np.float32))
    return tmp_path


def task_of(root, file="x.npz", **settings):
    return UnlabelledTask(NpzData(y=None, layout="NHWC"), root=str(root / file), **settings)


def judged(task, network, *, trains=True):
    return task.labelled_by(network, task.splits(), trains=trains)


class TestUnlabelledTask(TaskConformance):
    @pytest.fixture(params=["values", "classes"])
    def task(self, root, request):
        return task_of(root, compared=request.param)

    def loaded(self, task):
        return judged(task, ROWS)

    def outputs(self, task, splits):
        return -splits.validation.inputs


def test_labels_are_the_outputs_of_the_uncompressed_network(root):
    splits = judged(task := task_of(root), ROWS)
    np.testing.assert_array_equal(splits.validation.labels, -splits.validation.inputs)
    assert (task.metric.name, task.loss) == ("fidelity", "squared")
    assert "there are no labels: fidelity is no accuracy, it is the share of the variance" in task.notes()[0]


def test_largest_outputs_are_compared_where_outputs_are_probabilities(root):
    splits = judged(task := task_of(root), SHARES)
    np.testing.assert_array_equal(splits.test.labels, splits.test.inputs.argmax(1))
    assert (task.loss, task.metric.name) == ("cross_entropy", "fidelity")
    assert "task.compared=values compares values" in task.notes()[0]


def test_classes_of_positions(root):
    splits = judged(task_of(root, "images.npz", compared="classes"), MASKS.judged_by(OutputSpec(whole=True)))
    np.testing.assert_array_equal(splits.validation.labels, (-splits.validation.inputs).argmax(1))
    assert splits.validation.labels.shape == (8, 2, 2)


def test_examples_that_nothing_is_trained_on_get_no_labels(root):
    task = task_of(root)
    splits = task.splits()
    assert task.labelled_by(ROWS, splits, trains=False).train is splits.train
    assert len(judged(task, ROWS).train.labels) == len(splits.train)


def test_nothing_is_said_before_the_network_is_known(root):
    task = task_of(root)
    assert (task.loss, task.notes(), task.metric.name) == (None, (), "fidelity")


def test_classes_of_a_single_output_are_refused(root):
    task = task_of(root, compared="classes")
    single = model_from_text(
        "g (float[n,4] x) => (float[n,1] y) { a = Constant<value_ints=[1]>() y = ReduceMean(x, a) }", {}
    )
    with pytest.raises(
        InputError, match=r"an output for each class, but the network yields \(8, 1\) for 8 examples"
    ):
        judged(task, single)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"compared": "rows"}, "task.compared must be classes, values or null, not 'rows'"),
        ({"output": ["a", "b"]}, r"task.output must name one output, not \['a', 'b'\]"),
        ({"metric": "top1"}, "Unknown metric 'top1' in task.metric"),
    ],
)
def test_mistakes(root, settings, told):
    with pytest.raises(ConfigError, match=told):
        task_of(root, **settings)


def test_arrays_of_unequal_lengths_are_refused(root):
    np.savez(root / "two.npz", a=np.zeros((4, 2)), b=np.zeros((5, 2)))
    data = NpzData(y=None, input_shape={"a": [2], "b": [2]}, layout="NHWC")
    with pytest.raises(InputError, match=r"two.npz: b has 5 examples, but a has 4 examples"):
        data.read(root / "two.npz")


def test_images_of_a_folder_and_of_those_in_it(root):
    image = pytest.importorskip("PIL.Image")
    (root / "pictures" / "more").mkdir(parents=True)
    for name, size in (("a.png", (9, 12)), ("more/b.png", (20, 10)), ("c.jpg", (12, 12))):
        image.new("RGB", size, (255, 0, 0)).save(root / "pictures" / name)
    data = ImageFolder(str(root / "cache"), resize=8, crop=8)
    examples = data.read(root / "pictures")
    inputs, labels = next(examples.split.batches(3))
    assert inputs.shape == (3, 3, 8, 8)
    assert labels.tolist() == [-1, -1, -1]
    assert [place.rpartition("/")[2] for place in examples.where] == ["a.png", "c.jpg", "b.png"]
    assert data.preparation() == "rgb, resized to 8, cut to 8"
    with pytest.raises(InputError, match="has no images"):
        ImageFolder(str(root / "cache")).read(root / "cache")
