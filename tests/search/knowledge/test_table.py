"""A table is read with its types; an error names file, column and line."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.knowledge.table import read_table
from spaces.errors import ConfigError, InputError

GOOD = """task,task.size,knob.bits,knob.scheme,knob.clip,knob.fused,note,metric.top1,metric.latency_ms
a,3,4,None,0.5,True,hi,70.5,1
a,3,8,none,,False,,71,
b,5.5,8,KL,1,True,,1e1,2
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_columns_are_read_with_their_types(write):
    table = read_table(write(GOOD))
    assert table.knobs == ("bits", "scheme", "clip", "fused")
    assert table.metrics == ("top1", "latency_ms")
    assert table.tasks == ("a", "b")
    assert [row.line for row in table.rows] == [2, 3, 4]
    assert dict(table.rows[0].knobs) == {"bits": 4, "scheme": "None", "clip": 0.5, "fused": True}
    assert table.rows[1].knobs["clip"] is None
    assert type(table.rows[0].knobs["bits"]) is int
    assert type(table.rows[2].knobs["clip"]) is float
    assert table.rows[1].metrics == {"top1": 71.0}
    assert table.descriptors == {"a": {"size": 3.0}, "b": {"size": 5.5}}
    assert [row.index for row in table.of_task("b")] == [2]


def test_byte_order_mark_blank_lines_quotes_and_gzip(write, tmp_path):
    bom_blank_and_quotes = '\ufefftask,knob.a,metric.m\n\n"x, y",1,2\n'
    table = read_table(write(bom_blank_and_quotes))
    assert (table.tasks, table.rows[0].line) == (("x, y",), 3)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert len(read_table(tmp_path / "t.csv.gz").rows) == 3


def test_descriptors_that_are_no_numbers_become_indicators(write):
    table = read_table(write("task,task.kind,task.n,knob.a,metric.m\nx,cnn,1,1,1\ny,vit,,1,1\n"))
    assert table.descriptors == {"x": {"kind=cnn": 1.0, "n": 1.0}, "y": {"kind=vit": 1.0}}


def test_an_unknown_task_is_an_error_that_lists_the_known_ones(write):
    with pytest.raises(ConfigError, match=r"'aa'.*Did you mean 'a'.*Known: a, b"):
        read_table(write(GOOD)).of_task("aa")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("task,knob.a,metric.m\n", "no rows"),
        ("task,a,metric.m\nx,1,2\n", r"no column `knob.\*`"),
        ("task,knob.,metric.m\nx,1,2\n", r"no column `knob.\*`"),
        ("task,knob.a,m\nx,1,2\n", r"no column `metric.\*`"),
        (
            "task;knob.a;metric.m\nx;1;2\n",
            r"no column `knob.\*`; .*task;knob.a;metric.m; commas must separate",
        ),
        (
            "knob.a,metric.m\n1,2\n1,3\n",
            r"line 3 repeats line 2: task .*name the column in which they differ `task`",
        ),
        ("task,knob.a,metric.m\nx,1,2\nx,2,good\n", r"line 3: column `metric.m`.*'good'"),
        ("task,knob.a,metric.m\nx,1,nan\n", r"line 2: column `metric.m`.*finite.*'nan'"),
        ("task,knob.a,metric.m\nx,1,inf\n", r"line 2: column `metric.m`"),
        ("task,knob.a,metric.m\n,1,2\n", "line 2: column `task` is empty"),
        ("task,knob.a,metric.m\nx,1,2\ny,1,2\nx,1,3\n", "line 4 repeats line 2: task 'x'"),
        ("task,knob.a,metric.m\nx,1,2\nx,1\n", "line 3 has 2 cells, but the header has 3"),
        ("task,knob.a,metric.m\nx,1,2,4\n", "line 2 has 4 cells, but the header has 3"),
        ('task,knob.a,metric.m\nx,1,"2\n', "cannot be read as a CSV table"),
        ("task,knob.a,knob.a,metric.m\nx,1,2,3\n", "column `knob.a` twice"),
        ("task,task.n,knob.a,metric.m\nx,1,1,2\nx,2,2,2\n", r"line 3: column `task.n` is '2', but '1'"),
    ],
)
def test_invalid_tables_raise(write, text, message):
    path = write(text)
    with pytest.raises(InputError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_a_missing_file_a_folder_and_binary_files_raise(tmp_path):
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "bytes.csv")
    (tmp_path / "t.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "t.csv.gz")


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8, unique=True))
def test_integers_are_read_back_exactly(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text("task,knob.n,metric.m\n" + "".join(f"x,{n},{n}\n" for n in numbers))
    table = read_table(path)
    assert [row.knobs["n"] for row in table.rows] == numbers
    assert [row.metrics["m"] for row in table.rows] == [float(n) for n in numbers]
