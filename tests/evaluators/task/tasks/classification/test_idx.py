import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evaluators.task.tasks.classification.idx import IdxTask, read_idx
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import InputError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(root, ending="", rename=str):
    rng = np.random.default_rng(0)
    sizes = (60, 60, 20, 20)
    for name, n in zip(NAMES, sizes, strict=True):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        data = idx(images if "images" in name else (np.arange(n) % 10).astype(np.uint8))
        (root / (rename(name) + ending)).write_bytes(gzip.compress(data) if ending else data)


class TestIdx(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write(tmp_path)
        return IdxTask(str(tmp_path), calibration=10, validation=20)


def test_every_way_of_naming_gives_the_same_images(tmp_path):
    digests = set()
    ways = {"a": ("", str), "b": (".gz", str), "c": ("", lambda n: n.replace("-idx", ".idx"))}
    for folder, (ending, rename) in ways.items():
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, ending, rename)
        splits = IdxTask(str(tmp_path / folder), calibration=10, validation=20).splits()
        digests.add(splits.test.digest)
    assert len(digests) == 1


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=5)), st.data())
def test_arrays_are_read_back_and_any_truncation_raises(tmp_path_factory, array, data):
    path = tmp_path_factory.mktemp("idx") / "f"
    whole = idx(array)
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_idx(path), array)
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=r"no IDX file|truncated"):
        read_idx(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"text, not IDX", "is no IDX file"),
        (
            "train-labels-idx1-ubyte",
            idx(np.full(60, 10, np.uint8)),
            r"labels lie in 10\.\.10, but 10 classes",
        ),
        ("train-labels-idx1-ubyte", idx(np.zeros(59, np.uint8)), "60 whole-number labels"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((20, 8, 8), np.uint8)), r"inputs of shape \(1, 8, 8\), but"),
        ("t10k-images-idx3-ubyte", None, r"there is no t10k-images-idx3-ubyte or .*\.gz \(task.root\)"),
    ],
)
def test_invalid_files_raise(tmp_path, name, content, message):
    write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        IdxTask(str(tmp_path), calibration=10, validation=20).splits()


def test_truncated_gzip_raises(tmp_path):
    write(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        IdxTask(str(tmp_path), calibration=10, validation=20).splits()
