import re

import numpy as np
import pytest
from scipy.io import wavfile

from evaluators.task.data.sound.sound_folder import SoundFolderData
from evaluators.task.data.sound.tones import TonesData
from spaces.errors import ConfigError, InputError
from spaces.sound_features import LogMel

RATE = 2000
SPEAKER = "^(.+)_nohash_"
SMALL = LogMel(rate=RATE, window=100, hop=50, mels=8)


@pytest.fixture
def folder(tmp_path):
    """Three words by six speakers; the n-th file of all has the constant value n / 100."""
    n = 0
    for word in ("go", "no", "stop"):
        (tmp_path / "speech" / word).mkdir(parents=True)
        for speaker in "abcdef":
            values = np.full(RATE // 4, n / 100, np.float32)
            wavfile.write(tmp_path / "speech" / word / f"{speaker}_nohash_0.wav", RATE, values)
            n += 1
    (tmp_path / "speech" / "_background_noise_").mkdir()
    (tmp_path / "speech" / "_background_noise_" / "noise.wav").write_bytes(b"long")
    (tmp_path / "speech" / "README.md").write_text("words")
    return tmp_path / "speech"


def data(folder, **settings):
    return SoundFolderData(str(folder.parent / "cache"), **{"rate": RATE, "seconds": 0.25, **settings})


def test_folders_are_classes(folder):
    examples = data(folder).read(folder)
    assert examples.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert examples.split.inputs.shape == (18, 500)
    np.testing.assert_allclose(examples.split.inputs[:, 0], np.arange(18) / 100, atol=1e-6)
    assert examples.place(7) == str(folder / "no" / "b_nohash_0.wav")
    assert examples.groups is None


def test_features_are_computed_from_the_waveforms(folder):
    examples = data(folder, features=SMALL).read(folder)
    waves = data(folder).read(folder).split.inputs
    np.testing.assert_array_equal(examples.split.inputs, [SMALL(wave) for wave in waves])


def test_stored_sounds_follow_the_files_and_the_settings(folder):
    first = data(folder).read(folder).split
    assert data(folder).read(folder).split.digest == first.digest
    assert data(folder, seconds=0.2).read(folder).split.inputs.shape == (18, 400)
    wavfile.write(folder / "go" / "a_nohash_0.wav", RATE, np.ones(RATE, np.float32))
    assert data(folder).read(folder).split.inputs[0, 0] == 1


def test_a_cached_folder_is_not_decoded_again(folder, monkeypatch):
    first = data(folder).read(folder).split
    monkeypatch.setattr("evaluators.task.data.sound.wav.read_wav", lambda path: pytest.fail("read again"))
    assert data(folder).read(folder).split.digest == first.digest


def test_classes_are_chosen_and_ordered_and_others_are_one_more(folder):
    chosen = data(folder, classes=["stop", "go"]).read(folder)
    assert chosen.labels.tolist() == [1] * 6 + [0] * 6
    others = data(folder, classes=["stop"], others="unknown").read(folder)
    assert others.labels.tolist() == [1] * 12 + [0] * 6


def test_lists_are_the_splits_as_in_speech_commands(folder):
    (folder / "validation_list.txt").write_text(
        "go/a_nohash_0.wav\nno/a_nohash_0.wav\n\nstop/a_nohash_0.wav\n"
    )
    (folder / "testing_list.txt").write_text("stop/b_nohash_0.wav\n")
    lists = {"validation": "validation_list.txt", "test": "testing_list.txt"}
    examples = data(folder, lists=lists).read(folder)
    assert {part: rows.tolist() for part, rows in examples.parts.items()} == {
        "validation": [0, 6, 12],
        "test": [13],
    }
    fewer = data(folder, lists=lists, classes=["stop", "no"]).read(
        folder
    )  # files of other words do not count
    assert fewer.parts["validation"].tolist() == [0, 6]


def test_speakers_are_groups(folder):
    assert data(folder, group=SPEAKER).read(folder).groups.tolist() == list("abcdef") * 3


def test_classes_can_come_from_a_label_file(folder):
    (folder / "labels.csv").write_text("file,class\nstop/c_nohash_0.wav,high\ngo/b_nohash_0.wav,low\n")
    examples = data(folder, labels="labels.csv").read(folder)
    assert examples.labels.tolist() == [0, 1]
    np.testing.assert_allclose(examples.split.inputs[:, 0], [0.14, 0.01], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "text", "match"),
    [
        ({"classes": ["go", "yes"]}, None, "the class yes has no wav file"),
        ({"classes": ["go", "no", "stop"], "others": "unknown"}, None, "the class unknown has no wav file"),
        ({"group": r"^(\d+)_"}, None, r"a_nohash_0\.wav: its name does not match"),
        (
            {"lists": {"test": "list.txt"}},
            "go/a_nohash_0.wav\ngo/z.wav\n",
            r"list\.txt, line 2: there is no file go/z\.wav",
        ),
        ({"lists": {"test": "list.txt"}}, "\n", r"list\.txt lists none of the 18 sounds"),
        ({"lists": {"test": "absent.txt"}}, None, r"absent\.txt: there is no such file"),
        ({"labels": "list.txt"}, "file,label\n", r"list\.txt has no column 'class'"),
        (
            {"labels": "list.txt"},
            "file,class\n../a.wav,go\n",
            r"list\.txt, line 2: '\.\./a\.wav' is not a file name",
        ),
        ({"labels": "list.txt"}, "file,class\na.wav,\n", r"list\.txt, line 2: a\.wav has no class"),
        (
            {"labels": "list.txt"},
            "file,class\na.wav,x\na.wav,y\n",
            r"list\.txt, line 3: a\.wav is listed twice",
        ),
        ({"labels": "list.txt"}, "file,class\na.wav,x\n", r"a\.wav: there is no such sound"),
    ],
)
def test_wrong_folders_raise(folder, settings, text, match):
    if text is not None:
        (folder / "list.txt").write_text(text)
    with pytest.raises(InputError, match=match):
        data(folder, **settings).read(folder)


def test_a_damaged_sound_raises_with_its_name(folder):
    (folder / "no" / "c_nohash_0.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"no/c_nohash_0\.wav is damaged, or not a wav file"):
        data(folder).read(folder)


def test_a_folder_without_sounds_raises(tmp_path):
    with pytest.raises(InputError, match="has no wav files in folders"):
        data(tmp_path / "x").read(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        data(tmp_path / "x").read(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"task\.root must be given"):
        data(tmp_path / "x").read(None)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            {"features": LogMel(rate=8000)},
            r"task\.data\.features\.rate is 8000, but task\.data\.rate is 2000",
        ),
        ({"others": "unknown"}, r"task\.data\.others needs task\.data\.classes"),
        ({"lists": {"train": "x"}}, "'train' is none of validation, test, calibration"),
        ({"group": "("}, "is no regular expression"),
        ({"group": "^.+_nohash_"}, "needs a group in parentheses"),
    ],
)
def test_wrong_settings_raise(settings, match, tmp_path):
    with pytest.raises(ConfigError, match=match):
        data(tmp_path / "x", **settings)


def test_tones_are_written_once_as_wav_files(tmp_path):
    tones = TonesData(str(tmp_path), speakers=3, sounds=2, rate=RATE, group=SPEAKER)
    examples = tones.read(None)
    assert np.bincount(examples.labels).tolist() == [6] * 6
    assert sorted(set(examples.groups)) == ["s000", "s001", "s002"]
    files = sorted(tmp_path.rglob("*.wav"))
    assert len(files) == 36
    times = [file.stat().st_mtime_ns for file in files]
    assert (
        TonesData(str(tmp_path), speakers=3, sounds=2, rate=RATE, group=SPEAKER).read(None).split.digest
        == examples.split.digest
    )
    assert [file.stat().st_mtime_ns for file in files] == times
    assert re.fullmatch(r"beats/s000_nohash_0\.wav", "/".join(files[0].parts[-2:]))


def test_wrong_numbers_of_tones_raise(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.data\.speakers"):
        TonesData(str(tmp_path), speakers=0)
