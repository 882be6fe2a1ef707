from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from scipy.io import wavfile

from evaluators.task.data.npz import NpzData
from evaluators.task.data.sound.sound_folder import SoundFolderData
from evaluators.task.data.sound.tones import TonesData
from evaluators.task.tasks.classes import ClassesTask
from evaluators.task.tasks.testing import TaskConformance
from search.api import compose
from search.planning.config.instantiate import instantiate
from spaces.errors import ConfigError, InputError
from spaces.sound_features import LogMel
from spaces.stages.array_split import ArraySplit

DATA = Path(__file__).parents[4].parent / "shared/data"
SPEAKER = "^(.+)_nohash_"


def tones(folder, **settings):
    data = TonesData(str(folder), speakers=12, sounds=1, rate=2000, group=SPEAKER, **settings)
    return ClassesTask(data, calibration=2, validation=4, test=3)


class TestWaveforms(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return tones(tmp_path)


class TestFeatures(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return tones(tmp_path, features=LogMel(rate=2000, window=100, hop=50, mels=8))


def write_npz(path, labels):
    np.savez(path, x=np.random.default_rng(0).normal(size=(len(labels), 3)), y=np.asarray(labels))
    return ClassesTask(NpzData(), root=str(path), calibration=2, validation=4, test=2)


def test_no_speaker_is_in_two_splits(tmp_path):
    task = tones(tmp_path)
    splits = task.splits()
    speakers = []
    for name in ("train", "calibration", "validation", "test"):
        rows = getattr(splits, name).raw.rows
        speakers.append({task._examples.groups[row] for row in rows.tolist()})
    assert [len(found) for found in speakers] == [3, 2, 4, 3]
    assert len(set.union(*speakers)) == 12


def test_a_speaker_in_a_list_and_among_the_rest_raises(tmp_path):
    for word in ("go", "no"):
        (tmp_path / "speech" / word).mkdir(parents=True)
        for speaker in "abcdef":
            wavfile.write(tmp_path / "speech" / word / f"{speaker}_nohash_0.wav", 2000, np.ones(99, np.int16))
    (tmp_path / "speech" / "testing_list.txt").write_text("go/c_nohash_0.wav\n")
    lists = {"test": "testing_list.txt"}
    data = SoundFolderData(str(tmp_path), 2000, 0.1, lists=lists, group=SPEAKER)
    with pytest.raises(InputError, match=r"no/c_nohash_0\.wav: group c is in the splits test and the rest"):
        ClassesTask(data, root=str(tmp_path / "speech"), calibration=1, validation=2).splits()
    (tmp_path / "speech" / "testing_list.txt").write_text("go/c_nohash_0.wav\nno/c_nohash_0.wav\n")
    splits = ClassesTask(data, root=str(tmp_path / "speech"), calibration=1, validation=2).splits()
    assert [len(s) for s in (splits.train, splits.calibration, splits.validation, splits.test)] == [
        4,
        2,
        4,
        2,
    ]


def test_metrics_of_the_config_are_top_1_macro_f1_and_top_3():
    section = compose(["task=sound_classes", "task.root=x"]).data["task"]
    task = instantiate(section, "task", [], cache_dir=Path("cache"))
    assert [metric.name for metric in (task.metric, *task.others)] == ["top1", "macro_f1", "top3"]


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([[0, 1]] * 12, r"not int64 of shape \(12, 2\)"),
        ([0, 1, -1, 0] * 3, r"data\.npz, example 2: the label -1 is no class"),
        ([0, 2, 2, 0] * 3, r"data\.npz: class 1 has no examples; task\.n_classes says how many"),
    ],
)
def test_wrong_labels_raise(labels, match, tmp_path):
    with pytest.raises(InputError, match=match):
        write_npz(tmp_path / "data.npz", labels).splits()


def test_with_a_number_of_classes_some_may_have_no_examples(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(12, 3)), y=np.array([0, 2, 2, 0] * 3))
    assert ClassesTask(NpzData(), root=str(path), n_classes=5).n_classes == 5
    with pytest.raises(InputError, match=r"data\.npz, example 1: the class 2 is outside 0\.\.1"):
        ClassesTask(NpzData(), root=str(path), n_classes=2).splits()
    for wrong in ({"n_classes": 1}, {"n_classes": 3, "classes": ["a", "b"]}):
        with pytest.raises(ConfigError, match=r"task\.n_classes"):
            ClassesTask(NpzData(), **wrong)


@pytest.mark.skipif(not (DATA / "keyword_spotting").is_dir(), reason="the keyword spotting data are absent")
def test_the_reference_network_reaches_its_published_accuracy():
    """All 1,000 windows, over all splits, and by an independent computation: 90.1 %."""
    path = DATA / "keyword_spotting/kws01_mfcc.npz"
    data = NpzData(
        x="x_int8", example_shape=[49, 10, 1], layout="NHWC", scale=0.5847029, mean=[83 * 0.5847029]
    )
    splits = ClassesTask(
        data, root=str(path), n_classes=12, calibration=100, validation=500, test=400
    ).splits()
    session = ort.InferenceSession(
        str(DATA / "mlperf_tiny/kws_ref_model_float32.onnx"), providers=["CPUExecutionProvider"]
    )

    def right(inputs, labels):
        return session.run(None, {"input_1": inputs})[0].argmax(1) == labels

    parts = [
        split
        for split in (splits.calibration, splits.validation, splits.test)
        if isinstance(split, ArraySplit)
    ]
    assert np.concatenate([right(part.inputs, part.labels) for part in parts]).mean() == pytest.approx(0.901)
    stored = np.load(path)
    raw = ((stored["x_int8"].astype(np.float32) - 83) * np.float32(0.5847029))[..., None]
    assert right(raw, stored["y"]).mean() == pytest.approx(0.901)
