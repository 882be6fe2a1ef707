import io
import pickle
import tarfile

import numpy as np
import pytest

from evaluators.task.tasks.classification.cifar10 import Cifar10Task, read_cifar10
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import InputError

N = 20  # images per batch


def batches():
    """Six batches of rows as the original has them: all red bytes, all green, all blue."""
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {n: (rng.integers(0, 256, (N, 3072), dtype=np.uint8), np.arange(N) % 10) for n in names}


def python_files():
    # Protocol 2 and byte strings: what the original has.
    return {
        n: pickle.dumps({b"batch_label": n.encode(), b"labels": y.tolist(), b"data": x}, 2)
        for n, (x, y) in batches().items()
    }


def binary_files():
    rows = {n: np.hstack([y[:, None].astype(np.uint8), x]) for n, (x, y) in batches().items()}
    return {f"{n}.bin": r.tobytes() for n, r in rows.items()}


def write_folder(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def write_archive(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {**files, "batches.meta": b"x", "readme.html": b"x"}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_npz(root):
    whole = {n: (x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), y) for n, (x, y) in batches().items()}
    x, y = whole.pop("test_batch")
    np.savez(root / "test.npz", x=x, y=y.astype(np.uint8))
    for n, (x, y) in whole.items():
        np.savez(root / f"train_{n}.npz", x=x, y=y)


LAYOUTS = {
    "npz": write_npz,
    "python folder": lambda root: write_folder(root / "cifar-10-batches-py", python_files()),
    "binary folder": lambda root: write_folder(root / "cifar-10-batches-bin", binary_files()),
    "python archive": lambda root: write_archive(
        root / "cifar-10-python.tar.gz", "cifar-10-batches-py", python_files()
    ),
    "binary archive": lambda root: write_archive(
        root / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", binary_files()
    ),
}


class TestCifar10(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        write_npz(tmp_path)
        return Cifar10Task(str(tmp_path), calibration=10, validation=20)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    (x, y), (x_test, y_test) = read_cifar10(tmp_path)
    rows, labels = batches()["data_batch_2"]
    assert x.shape == (5 * N, 32, 32, 3)
    np.testing.assert_array_equal(x[N : 2 * N, 3, 4, 1], rows[:, 1024 + 3 * 32 + 4])
    np.testing.assert_array_equal(y[N : 2 * N], labels)
    np.testing.assert_array_equal(x_test[:, 0, 0, 2], batches()["test_batch"][0][:, 2048])
    assert y_test.dtype == np.int64


def test_root_may_be_the_archive_or_the_folder_itself(tmp_path):
    LAYOUTS["python archive"](tmp_path)
    LAYOUTS["binary folder"](tmp_path)
    archive = read_cifar10(tmp_path / "cifar-10-python.tar.gz")
    folder = read_cifar10(tmp_path / "cifar-10-batches-bin")
    np.testing.assert_array_equal(archive[1][0], folder[1][0])


def test_test_split_is_the_whole_published_test_set(tmp_path):
    write_npz(tmp_path)
    splits = Cifar10Task(str(tmp_path), calibration=10, validation=20).splits()
    assert (len(splits.test), len(splits.train)) == (N, 5 * N - 30)


def damaged(root, name, change):
    path = next(root.rglob(name))
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("layout", "name", "change", "message"),
    [
        ("npz", "test.npz", lambda d: d[:-100], "test.npz is damaged"),
        ("npz", "train_data_batch_1.npz", lambda d: b"no", "train_data_batch_1.npz is not an .npz file"),
        ("python folder", "data_batch_3", lambda d: d[:500], "data_batch_3 is damaged"),
        ("python folder", "test_batch", lambda d: pickle.dumps([1, 2]), "holds no 'data' and 'labels'"),
        (
            "python folder",
            "test_batch",
            lambda d: pickle.dumps({"data": print, "labels": []}),
            "builtins.print",
        ),
        ("binary folder", "data_batch_3.bin", lambda d: d[:-1], "data_batch_3.bin is truncated"),
        ("binary folder", "test_batch.bin", lambda d: b"\xff" + d[1:], "labels lie in 0..255"),
        ("python archive", "*.tar.gz", lambda d: d[: len(d) // 2], "cifar-10-python.tar.gz is damaged"),
        ("binary archive", "*.tar.gz", lambda d: b"text", "cifar-10-binary.tar.gz is damaged"),
    ],
)
def test_damaged_files_raise(tmp_path, layout, name, change, message):
    LAYOUTS[layout](tmp_path)
    damaged(tmp_path, name, change)
    with pytest.raises(InputError) as caught:
        read_cifar10(tmp_path)
    assert message in str(caught.value)


def test_missing_files_raise(tmp_path):
    with pytest.raises(InputError, match=r"no CIFAR-10 found \(task.root\)"):
        read_cifar10(tmp_path)
    LAYOUTS["python folder"](tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").unlink()
    with pytest.raises(InputError, match="lacks test_batch"):
        read_cifar10(tmp_path)


def test_arrays_of_another_shape_raise(tmp_path):
    for name in ("test", "train"):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((2, 28, 28), np.uint8), y=np.zeros(2, int))
    with pytest.raises(InputError, match=r"must be uint8 of shape \(n, 32, 32, 3\), not uint8 \(2, 28, 28\)"):
        read_cifar10(tmp_path)


def test_validation_images_may_come_from_the_test_set(tmp_path):
    write_npz(tmp_path)
    task = Cifar10Task(str(tmp_path), calibration=10, validation=8, validate_on="test")
    splits = task.splits()
    assert [len(s) for s in (splits.train, splits.calibration, splits.validation, splits.test)] == [
        90,
        10,
        8,
        12,
    ]
    (_, (x_test, _)) = read_cifar10(tmp_path)
    held_out = np.concatenate([splits.validation.raw, splits.test.raw]).reshape(N, -1)
    assert {row.tobytes() for row in held_out} == {row.tobytes() for row in x_test.reshape(N, -1)}
