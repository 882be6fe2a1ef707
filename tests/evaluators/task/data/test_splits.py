import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.data.splits import Normalise, carve, check_labels
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit


@given(
    st.lists(st.integers(0, 4), min_size=3, max_size=200),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(0, 5),
)
def test_parts_are_disjoint_and_of_the_requested_size(labels, a, b, seed):
    n = len(labels)
    sizes = {"test": a, "validation": b, "train": None}
    if a + b > n:
        with pytest.raises(ConfigError, match=f"{a + b} examples, but there are only {n}"):
            carve(n, sizes, np.array(labels), seed)
        return
    parts = carve(n, sizes, np.array(labels), seed)
    assert [len(parts[k]) for k in sizes] == [a, b, n - a - b]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))


@given(st.integers(1, 8), st.integers(5, 40), st.integers(0, 100), st.data())
def test_the_first_examples_of_a_part_have_classes_in_proportion(n_classes, per_class, seed, data):
    labels = np.repeat(np.arange(n_classes), per_class)
    size = data.draw(st.integers(1, len(labels)))
    part = carve(len(labels), {"test": size, "train": None}, labels, seed)["test"]
    counts = np.bincount(labels[part], minlength=n_classes)
    assert np.abs(counts - size / n_classes).max() <= 2


def test_division_depends_on_the_seed_alone():
    labels = np.arange(100) % 10
    first, same, other = (carve(100, {"test": 20, "train": None}, labels, seed)["test"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert set(first) != set(other)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "10"])
def test_a_calibration_split_without_examples_raises(size):
    with pytest.raises(
        ConfigError, match=r"task\.calibration must be a whole number of examples, at least 1"
    ):
        carve(10, {"calibration": size, "train": None}, None, 0)


def test_no_examples_for_a_split_that_takes_the_rest_raises():
    with pytest.raises(ConfigError, match=r"task\.test would be empty"):
        carve(10, {"validation": 10, "test": None}, None, 0)


def test_train_may_be_empty():
    assert len(carve(10, {"test": 10, "train": None}, None, 0)["train"]) == 0


def test_normalise_by_hand():
    raw = np.array([[[[0, 255]]]], np.uint8)  # (1, 1, 1, 2 channels)
    channels_first = Normalise(1 / 255, (0.5, 0.25), (0.5, 0.25))
    np.testing.assert_allclose(channels_first(raw), [[[[-1.0]], [[3.0]]]], rtol=1e-6)
    as_stored = Normalise(1 / 255, (0.5, 0.25), (0.5, 0.25), "NHWC")
    np.testing.assert_allclose(as_stored(raw), [[[[-1.0, 3.0]]]], rtol=1e-6)
    assert channels_first.shape((4, 5, 2)) == (2, 4, 5)
    assert as_stored.shape((4, 5, 2)) == (4, 5, 2)
    assert channels_first(raw).dtype == np.float32


@pytest.mark.parametrize("shape", [(4,), (6, 3), (5, 4, 3), (2, 3, 4, 2)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalise_shape_is_that_of_its_outputs(shape, layout):
    transform = Normalise(layout=layout)
    assert transform(np.zeros((2, *shape))).shape == (2, *transform.shape(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"std": (1.0, 0.0)}, "must not hold 0"),
        ({"layout": "CHWN"}, "NCHW or NHWC"),
        ({"mean": ("a",)}, "must list numbers"),
        ({"std": ()}, "must list numbers"),
    ],
)
def test_invalid_arguments_of_normalise_raise(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Normalise(**arguments)


def test_a_wrong_number_of_means_raises():
    with pytest.raises(ConfigError, match=r"task\.mean has 3 values, but the examples have 1 channels"):
        Normalise(mean=(0.1, 0.2, 0.3)).shape((28, 28, 1))


def test_digest_depends_on_examples_labels_and_transform():
    raw, labels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.array([0, 1])
    splits = [
        ArraySplit(raw, labels, Normalise()),
        ArraySplit(raw + np.uint8(1), labels, Normalise()),
        ArraySplit(raw, labels[::-1].copy(), Normalise()),
        ArraySplit(raw, labels, Normalise(scale=1.0)),
        ArraySplit(raw.reshape(2, 4, 1, 1), labels, Normalise()),
        ArraySplit(raw.astype(np.int8), labels, Normalise()),
    ]
    assert len({s.digest for s in splits}) == len(splits)
    assert ArraySplit(raw.copy(), labels.copy(), Normalise()).digest == splits[0].digest


def test_labels_are_checked():
    assert check_labels(np.array([[1], [0]], np.uint8), 2, 2, "f").tolist() == [1, 0]
    with pytest.raises(InputError, match=r"f: labels lie in 0\.\.2, but 2 classes need 0\.\.1"):
        check_labels(np.array([0, 2]), 2, 2, "f")
    with pytest.raises(InputError, match="3 whole-number labels"):
        check_labels(np.array([0, 1]), 3, 2, "f")
    with pytest.raises(InputError, match="not float64"):
        check_labels(np.array([0.0, 1.0]), 2, 2, "f")
