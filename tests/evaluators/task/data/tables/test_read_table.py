import gzip

import numpy as np
import pytest

from evaluators.task.data.tables.read_table import read_table
from spaces.errors import InputError


def file(tmp_path, text, name="data.csv"):
    path = tmp_path / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def parquet(tmp_path, columns, name="data.parquet"):
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), tmp_path / name)
    return tmp_path / name


def test_columns_of_a_csv_file(tmp_path):
    table = read_table(file(tmp_path, '\ufeffa,b,c\n1,0.5,"x, y"\n\n2,-1e3,"two\nlines"\n'))
    assert table.n == 2
    assert table.numbers("a").dtype == np.int64
    assert table.numbers("a").tolist() == [1, 2]
    assert table.numbers("b").tolist() == [0.5, -1000.0]
    assert table.texts("c").tolist() == ["x, y", "two\nlines"]
    assert [*table.rows] == [f"{tmp_path / 'data.csv'}, row {row}" for row in (1, 2)]


@pytest.mark.parametrize("name", ["data.tsv", "data.tsv.gz"])
def test_columns_of_a_tsv_file(tmp_path, name):
    table = read_table(file(tmp_path, "a\tb\n1\tx,y\n", name))
    assert table.texts("b").tolist() == ["x,y"]


def test_a_long_value_is_read(tmp_path):
    assert len(read_table(file(tmp_path, f"text\n{'x' * 300_000}\n")).texts("text")[0]) == 300_000


def test_columns_of_a_parquet_file(tmp_path):
    table = read_table(
        parquet(tmp_path, {"a": [1, 2], "b": [0.5, 1.5], "c": ["x", "y"], "d": [[1, 2], [3, 4]]})
    )
    assert table.numbers("a").tolist() == [1, 2]
    assert table.numbers("b").tolist() == [0.5, 1.5]
    assert table.labels("c").tolist() == ["x", "y"]
    assert table.numbers("d").tolist() == [[1, 2], [3, 4]]


def test_labels_are_numbers_if_all_are(tmp_path):
    table = read_table(file(tmp_path, "a,b,c\n1,1,0.5\n0,x,1\n"))
    assert table.labels("a").dtype == np.int64
    assert table.labels("b").tolist() == ["1", "x"]
    assert table.labels("c").tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,\n", r"data\.csv, row 2, column b: the value is missing"),
        ("a,b\n1,2\n3,tall\n", r"data\.csv, row 2, column b: 'tall' is not a number"),
        ("a,b\n1,2\n3,inf\n", r"data\.csv, row 2, column b: the value is not finite"),
        ("a,b\n1,nan\n3,1\n", r"data\.csv, row 1, column b: the value is missing"),
        ("a,c\n1,2\n", r"data\.csv: Unknown column 'b'\. Known: a, c"),
        ("a,b\n1,2\n\n3\n", r"data\.csv, row 2 \(line 4\): 1 values, but the header names 2 columns"),
        ("a,b\n1,2,3\n", r"data\.csv, row 1 \(line 2\): 3 values, but the header names 2 columns"),
        ("a,b\n", r"data\.csv has no rows"),
        ("", r"data\.csv is empty"),
        ("b,b\n1,2\n", r"data\.csv: two columns are named 'b'"),
        ('a,b\n1,"2\n', r"data\.csv is not a CSV file in UTF-8: unexpected end of data"),
        (b"a,b\n1,\xff\n", r"data\.csv is damaged, or not a CSV file in UTF-8"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_table(file(tmp_path, text)).numbers("b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, None], "row 2, column b: the value is missing"),
        ([1, None], "row 2, column b: the value is missing"),
        ([0.5, float("nan")], "row 2, column b: the value is missing"),
        (["1", "tall"], "row 2, column b: 'tall' is not a number"),
        ([[1, 2], [3]], "row 2, column b: the list has 1 values, but that of row 1 has 2"),
        ([[1, 2], [3, None]], "row 2, column b: the value is missing"),
        ([[1, 2], None], "row 2, column b: the value is missing"),
    ],
)
def test_wrong_values_of_parquet_are_named(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        read_table(parquet(tmp_path, {"b": values})).numbers("b")


def test_damaged_files_and_unknown_formats(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    for name, message in (
        ("data.parquet", "is damaged, or not a Parquet file"),
        ("data.xlsx", r"must end in \.csv, \.tsv, \.parquet"),
        ("none.csv", "there is no such file"),
        ("none.parquet", "there is no such file"),
    ):
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)


def test_a_missing_text_is_named(tmp_path):
    with pytest.raises(InputError, match="row 2, column b: the value is missing"):
        read_table(file(tmp_path, "a,b\n1,x\n2,\n")).texts("b")
