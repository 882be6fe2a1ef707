from itertools import takewhile

import numpy as np
import pytest

from evaluators.runtime import rollout_of
from evaluators.task.data.leaks import copy_notes
from evaluators.task.data.npz import NpzData
from evaluators.task.data.prefix_split import HYPOTHESES, LAST, PrefixSplit
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.sequences.retranslate import RetranslateTask
from evaluators.task.tasks.testing import TaskConformance
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit

N, STEPS, CLASSES = 40, 10, 3


def saved(path, x=None, y=None):
    """Sequences that change, and the classes of their steps; every other sequence ends after seven steps."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 9, (N, STEPS))
    labels = ids % CLASSES
    ids[::2, 7:], labels[::2, 7:] = 0, -1
    np.savez(path, x=ids if x is None else x, y=labels if y is None else y)
    return str(path)


def task_of(tmp_path, every=3, x=None, y=None, **settings):
    sizes = {"calibration": 4, "validation": 10, "test": 10}
    return RetranslateTask(NpzData(), root=saved(tmp_path / "a.npz", x, y), every=every, **sizes, **settings)


def one_hot(classes):
    return np.eye(CLASSES, dtype=np.float32)[classes.astype(int) % CLASSES]


def looking_ahead(ids):
    """A network that takes back: the class of a step is that of the next one."""
    return one_hot(np.concatenate([ids[:, 1:], ids[:, :1] * 0], axis=1))


class TestRetranslate(TaskConformance):
    @pytest.fixture
    def task(self, tmp_path):
        return task_of(tmp_path)

    def outputs(self, task, splits):
        inputs, labels = next(splits.validation.batches(99))
        return splits.validation.rollout(one_hot, inputs, labels)


def ran(split, network):
    inputs, labels = next(split.batches(99))
    return split.rollout(network, inputs, labels), inputs, labels


def values(task, outputs, labels):
    return {m.name: value_of(m, statistics_of(m, outputs, labels)) for m in (task.metric, *task.others)}


@pytest.mark.parametrize("held_back", [0, 2, 5])
def test_it_is_what_a_plain_loop_over_prefixes_gives(tmp_path, held_back):
    task = task_of(tmp_path, held_back=held_back)
    outputs, inputs, labels = ran(task.splits().validation, looking_ahead)
    erased = right = total = 0
    for ids, of_it in zip(inputs, labels, strict=True):
        n = int((of_it >= 0).sum())
        before = []
        for end in (3, 6, 9, STEPS):
            prefix = np.array([*ids[:end], *[0] * (STEPS - end)])
            said = looking_ahead(prefix[None])[0].argmax(1).tolist()
            said = said[:n] if end >= n else said[: max(end - held_back, 0)]
            same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(before, said, strict=False))])
            erased += len(before) - same
            before = said
        right += sum(a == b for a, b in zip(before, of_it[:n], strict=True))
        total += n
    found = values(task, outputs, labels)
    assert found["erasure"] == pytest.approx(erased / total)
    assert (erased > 0) == (held_back == 0)  # a network that looks one step ahead is wrong at the end only
    assert found["token_accuracy"] == pytest.approx(100 * right / total)
    assert outputs[HYPOTHESES].shape == (10, 4, STEPS)


def test_a_constant_output_has_no_erasure_and_a_causal_network_none(tmp_path):
    task = task_of(tmp_path, every=1)
    for network in (lambda ids: one_hot(ids * 0), one_hot):
        outputs, _, labels = ran(task.splits().validation, network)
        assert values(task, outputs, labels)["erasure"] == 0


def test_nothing_after_the_prefix_is_seen():
    ids = np.arange(1, 9)[None]
    split = PrefixSplit(ArraySplit(ids, ids * 0), 3, pad=-5)
    seen = []
    split.rollout(lambda x: seen.append(x) or one_hot(x), ids, split.labels)
    assert [row.tolist() for (row,) in seen] == [
        [1, 2, 3, *[-5] * 5],
        [1, 2, 3, 4, 5, 6, -5, -5],
        ids[0].tolist(),
    ]
    assert ids[0].tolist() == [*range(1, 9)]


def test_every_input_is_cut():
    ids = np.arange(1, 5)[None]
    split, seen = PrefixSplit(ArraySplit(ids, ids * 0), 2), []
    both = {"ids": ids, "mask": np.ones_like(ids)}
    split.rollout(lambda x: seen.append(x) or one_hot(x["ids"]), both, split.labels)
    assert seen[0]["mask"].tolist() == [[1, 1, 0, 0]]
    assert seen[1]["mask"].tolist() == [[1, 1, 1, 1]]


def test_scores_that_are_not_finite_for_a_prefix_are_seen():
    ids = np.arange(1, 9).reshape(2, 4)
    split = PrefixSplit(ArraySplit(ids, ids * 0), 2)

    def network(x):
        return np.where((x[:, -1:, None] == 0) & (x[:, :1, None] == 1), np.nan, one_hot(x))

    last = split.rollout(network, ids, split.labels)[LAST]
    assert np.isnan(last[0]).all()
    assert np.isfinite(last[1]).all()


def test_only_validation_and_test_are_run_prefix_by_prefix(tmp_path):
    splits = task_of(tmp_path).splits()
    run = {
        name for name in ("train", "calibration", "validation", "test") if rollout_of(getattr(splits, name))
    }
    assert run == {"validation", "test"}


def test_digests_follow_the_prefixes(tmp_path):
    settings = [{}, {"every": 2}, {"held_back": 1}, {"pad": 1}]
    assert len({task_of(tmp_path, **s).splits().validation.digest for s in settings}) == 4


def test_copies_in_two_splits_are_noted(tmp_path):
    splits = task_of(tmp_path, x=np.ones((N, STEPS), int)).splits()
    (note, *_) = copy_notes({"train": splits.train, "validation": splits.validation, "test": splits.test})
    assert "10 of 10 validation examples are exact copies of train examples" in note


def test_agreement_is_that_of_the_last_hypotheses(tmp_path):
    task = task_of(tmp_path)
    split = task.splits().validation
    one, other = ran(split, one_hot)[0], ran(split, looking_ahead)[0]
    same = (one[LAST].argmax(2) == other[LAST].argmax(2)).mean()
    assert value_of(task.agreement, statistics_of(task.agreement, one, other)) == pytest.approx(100 * same)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, r"task\.every must be a whole number from 1 on, not 0"),
        ({"every": 1.5}, r"task\.every must be a whole number from 1 on, not 1\.5"),
        ({"held_back": -1}, r"task\.held_back must be a whole number from 0 on, not -1"),
        ({"every": 10}, r"task\.every=10, but sequences have 10 steps"),
    ],
)
def test_impossible_settings_raise(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        task_of(tmp_path, **settings).splits()


def test_inputs_whose_first_axis_is_no_step_raise(tmp_path):
    with pytest.raises(InputError, match=r"a\.npz: labels have 10 steps, but an input is of shape \(2, 10\)"):
        task_of(tmp_path, x=np.zeros((N, STEPS, 2))).splits()


def test_wrong_labels_raise(tmp_path):
    labels = np.zeros((N, STEPS), int)
    labels[5, 2] = -2
    with pytest.raises(InputError, match=r"example 5: the class -2 of step 2 is neither -1 nor in"):
        task_of(tmp_path, y=labels).splits()
