import pickle
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evaluators.task.data.archives import read_npz, unpickle_plain
from spaces.errors import InputError


class Code:
    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32]), hnp.array_shapes(max_dims=3, max_side=4))
)
def test_plain_arrays_come_back(array):
    for value in (array, np.asfortranarray(array)):
        for protocol in (2, 4):
            content = {b"data": value, "labels": [1, 2], b"text": b"x"}
            found = unpickle_plain(pickle.dumps(content, protocol), "f")
            np.testing.assert_array_equal(found["data"], array)
            assert found["data"].dtype == array.dtype
            assert found["labels"] == [1, 2]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_is_refused_and_not_run(tmp_path, protocol):
    target = tmp_path / "made"
    attacks = [
        Code(open, str(target), "w"),
        Code(eval, f"open({str(target)!r}, 'w')"),
        Code(getattr, "text", "upper"),
        Code(np.load, str(target)),
    ]
    for attack in attacks:
        with pytest.raises(InputError, match="only plain arrays are allowed"):
            unpickle_plain(pickle.dumps({"data": attack}, protocol), "batch")
    assert not target.exists()


def test_arrays_of_objects_are_refused():
    with pytest.raises(InputError):
        unpickle_plain(pickle.dumps({"data": np.array([{}, "x"], dtype=object)}, 2), "batch")


@given(st.binary(max_size=60))
def test_any_bytes_end_in_an_input_error_or_a_value(data):
    with suppress(InputError):
        unpickle_plain(data, "batch")


def test_npz_errors_name_the_file(tmp_path):
    good = tmp_path / "good.npz"
    np.savez(good, x=np.arange(1000), y=np.arange(3))
    assert read_npz(good, "y")[0].tolist() == [0, 1, 2]
    truncated, text, single, objects = (tmp_path / f for f in ("t.npz", "text.npz", "s.npz", "o.npz"))
    truncated.write_bytes(good.read_bytes()[:-40])
    text.write_text("a,b\n1,2\n")
    with single.open("wb") as file:
        np.save(file, np.arange(3))
    np.savez(objects, x=np.array([{}], dtype=object))
    for path in (truncated, text, single, objects, tmp_path / "absent.npz", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_npz(path, "x")
    with pytest.raises(InputError, match="has no array 'z'; it has x, y"):
        read_npz(good, "z")
