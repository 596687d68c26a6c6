"""Parts are joined into one file; each format rejects what it cannot represent."""

import json

import numpy
import pyarrow.parquet
import pytest

from distrib.errors import InferenceError, JobError
from distrib.inference.prediction.writers import check_format, join_parts, open_part

SUFFIXES = (".npy", ".parquet", ".jsonl")


def write(folder, suffix, shards):
    """Writes shards of batches, joins them and returns the file."""
    parts, row = [], 0
    for number, batches in enumerate(shards):
        writer = open_part(folder / f"part-{number}{suffix}", row)
        for columns in batches:
            writer.write(columns)
            row += len(next(iter(columns.values())))
        parts.append(writer.close())
    join_parts(parts, folder / f"whole{suffix}")
    return folder / f"whole{suffix}"


def read(path):
    if path.suffix == ".npy":
        return numpy.load(path).tolist()
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pydict()["output"]
    return [json.loads(line)["output"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "uint8"])
def test_rows_come_back_in_order(tmp_path, suffix, shape, dtype):
    rows = (numpy.arange(7 * int(numpy.prod(shape))) % 3).reshape(7, *shape).astype(dtype)
    path = write(tmp_path, suffix, [[{"output": rows[:2]}, {"output": rows[2:3]}], [{"output": rows[3:]}]])
    assert read(path) == rows.tolist()
    if suffix == ".npy":
        assert numpy.load(path).dtype == rows.dtype
    assert list(tmp_path.glob("part-*")) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_without_rows_changes_nothing(tmp_path, suffix):
    rows = numpy.ones((2, 3))
    assert read(write(tmp_path, suffix, [[{"output": rows[:0]}], [{"output": rows}], []])) == rows.tolist()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_of_several_lengths(tmp_path, suffix):
    batches = [[{"output": numpy.ones((2, 3))}], [{"output": numpy.zeros((1, 5))}]]
    assert read(write(tmp_path, suffix, batches)) == [[1.0] * 3, [1.0] * 3, [0.0] * 5]


def test_npy_holds_rows_of_one_shape_in_one_part_and_over_all(tmp_path):
    long, short = {"output": numpy.ones((1, 5))}, {"output": numpy.ones((2, 3))}
    for shards in ([[short, long]], [[short], [long]]):
        with pytest.raises(InferenceError, match=r"row 2: its output has shape \(5,\) .* use .parquet or .jsonl"):
            write(tmp_path, ".npy", shards)


def test_columns_of_another_type_are_refused(tmp_path):
    with pytest.raises(InferenceError, match="row 1"):
        write(tmp_path, ".parquet", [[{"a": ["x"]}, {"a": [2]}]])
    with pytest.raises(InferenceError, match="row 1: its outputs have the columns"):
        write(tmp_path, ".parquet", [[{"a": ["x"]}], [{"a": numpy.ones(1)}]])


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_complex_numbers_are_refused(tmp_path, suffix):
    with pytest.raises(InferenceError, match=f"row 0.*{suffix} cannot represent"):
        write(tmp_path, suffix, [[{"output": numpy.ones(2, dtype=complex)}]])


def test_text_is_no_npy(tmp_path):
    with pytest.raises(InferenceError, match="stores numbers"):
        write(tmp_path, ".npy", [[{"output": ["a", "b"]}]])


@pytest.mark.parametrize("name", ["out.csv", "out", "out.npy.gz", ".npy"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(JobError, match=r"must end with .npy, .parquet or .jsonl"):
        check_format(tmp_path / name)
