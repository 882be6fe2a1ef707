"""Whoever runs a compressed file is told how inputs are made and what outputs stand for, or that nobody knows."""

import numpy as np
import pytest
from PIL import Image

from evaluators.task.data.npz import NpzData
from evaluators.task.data.sound.tones import TonesData
from evaluators.task.data.tables.table_data import TableData
from evaluators.task.data.text.text_folder import TextFolder
from evaluators.task.preparation import preparation_of
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.classification.digits import DigitsTask
from evaluators.task.tasks.classification.image_folder import ImageFolderTask
from evaluators.task.tasks.classification.npz import NpzTask
from evaluators.task.tasks.regression import RegressionTask
from spaces.sound_features import LogMel


def told(task):
    return preparation_of(task, task.splits().validation)


@pytest.fixture
def images(tmp_path):
    for name in ("dog", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.full((9, 12, 3), 20 * i + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def image_task(root, **more):
    settings = {
        "n_classes": 2,
        "resize": 9,
        "crop": 8,
        "calibration": 2,
        "validation": 4,
        "test": 4,
        "labels": None,
    }
    return ImageFolderTask(str(root), str(root.parent / "cache"), **{**settings, **more})  # fmt: skip


def test_folders_of_images_tell_scaling_and_classes_in_the_outputs_order(images):
    found = told(image_task(images))
    assert found["classes"] == "0 cat, 1 dog"
    assert "resized to 9 pixels (bilinear), the centre of 8 x 8 cut out" in found["scaling"]
    assert (
        "(x · 0.00392157 − mean) / std, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225, channels first"
        in found["scaling"]
    )


def test_the_order_of_a_file_of_classes_counts_and_a_label_file_has_no_names(images):
    (images / "order.txt").write_text("dog\ncat\n")
    assert told(image_task(images, classes="order.txt"))["classes"] == "0 dog, 1 cat"
    rows = [f"{n}/{i}.png,{k}" for k, n in enumerate(("cat", "dog")) for i in range(6)]
    (images / "labels.csv").write_text("\n".join(["file,class_index", *rows]))
    found = told(image_task(images, labels="labels.csv"))
    assert found["classes"] == "numbers 0 to 1; the data do not name them"


def test_arrays_tell_their_scaling_and_that_classes_have_no_names(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((60, 8, 3)), y=np.arange(60) % 4)
    task = NpzTask(
        str(tmp_path / "a.npz"), [3, 8], 4, calibration=10, validation=20, test=20, mean=[0.5], std=[2]
    )
    assert told(task) == {
        "scaling": "(x · 1 − mean) / std, mean 0.5, std 2, channels first".replace("x · 1", "x"),
        "classes": "numbers 0 to 3; the data do not name them",
    }  # fmt: skip
    plain = NpzTask(str(tmp_path / "a.npz"), [3, 8], 4, calibration=10, validation=20, test=20)
    assert told(plain)["scaling"] == "values as stored, channels first"


def test_several_inputs_are_told_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", a=rng.random((60, 3)), b=rng.random((60, 2)), y=np.arange(60) % 2)
    shapes = {"a": [3], "b": [2]}
    task = NpzTask(
        str(tmp_path / "a.npz"), shapes, 2, calibration=10, validation=20, test=20, scale={"b": 0.5}
    )
    assert told(task)["scaling"] == "a: values as stored, channels first; b: x · 0.5, channels first"


def test_sounds_tell_rate_features_and_classes(tmp_path):
    features = LogMel(rate=8000, window=480, hop=320, mels=20, mean=-6.0, std=4.0)
    data = TonesData(
        str(tmp_path), speakers=10, sounds=1, rate=8000, features=features, group="^(.+)_nohash_"
    )
    found = told(ClassesTask(data))
    assert "mono, 8,000 samples a second from -1 to 1, cut or filled with zeros to" in found["scaling"]
    assert "spaces.sound_features.LogMel(rate=8000, window=480" in found["scaling"]
    assert found["classes"].startswith("0 ")
    assert len(found["classes"].split(", ")) == 6


def test_tables_tell_what_was_learned_of_the_training_split(tmp_path):
    rows = [f"{i},{2 * i % 7},{'yes' if i % 2 else 'no'}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,label", *rows]))
    task = ClassesTask(TableData(label="label"), root=str(tmp_path / "t.csv"))
    found = told(task)
    assert found["classes"] == "0 no, 1 yes"
    transform = task.splits().validation.transform
    assert (
        f"(x − mean) / std by column, mean {transform.mean[0]:.6g}, {transform.mean[1]:.6g}, std"
        in found["scaling"]
    )


def test_texts_tell_their_tokens_and_given_names_prevail(tmp_path):
    for name in ("neg", "pos"):
        (tmp_path / name).mkdir()
        for i in range(20):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} {i}")
    task = ClassesTask(TextFolder(length=16), classes=["pos", "neg"], root=str(tmp_path))
    assert told(task) == {
        "scaling": "bytes of UTF-8, each plus 1, cut or filled with 0 to 16",
        "classes": "0 pos, 1 neg",
    }


def test_numbers_have_no_classes_and_an_unknown_preparation_is_said_to_be_unknown(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((60, 3), np.float32), y=np.random.default_rng(0).random(60))
    task = RegressionTask(NpzData(), root=str(tmp_path / "a.npz"))
    split = task.splits().validation
    assert "classes" not in preparation_of(task, split)

    class Bare:
        """A split of one's own, without a transform."""

    assert "the task does not say how inputs are made" in preparation_of(DigitsTask(), Bare())["scaling"]
