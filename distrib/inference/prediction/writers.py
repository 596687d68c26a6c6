"""Output files: each process writes a part, and the parts are joined in order."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy

from distrib.errors import InferenceError, JobError
from distrib.inference.columns import OUTPUT, Column, Columns

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".npy", ".parquet", ".jsonl")
_COPY_BYTES = 2**24


@dataclass(frozen=True)
class Part:
    """A complete part file.

    Attributes:
        path: The file.
        num_rows: The number of rows.
        first_row: The index of the first row.
        layout: What all parts of a file must have in common; None if the format does not require anything.
    """

    path: Path
    num_rows: int
    first_row: int
    layout: Any = None


class PartWriter(Protocol):
    """Writes the rows of one process, batch by batch."""

    def write(self, columns: Columns) -> None:
        """Appends a batch.

        Raises:
            InferenceError: The format cannot represent it.
        """

    def close(self) -> Part:
        """Completes the file."""


def check_format(path: Path) -> str:
    """The format selected by the suffix of a file name.

    Raises:
        JobError: The suffix is not supported.
    """
    if path.suffix not in FORMATS:
        raise JobError(f"{path.name}: the name must end with {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", field="`out`")
    return path.suffix


def open_part(path: Path, first_row: int) -> PartWriter:
    """A writer for a part file, by its suffix."""
    writers: dict[str, Callable[[Path, int], PartWriter]] = {
        ".npy": _NpyPart,
        ".parquet": _ParquetPart,
        ".jsonl": _JsonPart,
    }
    return writers[path.suffix](path, first_row)


def join_parts(parts: Sequence[Part], path: Path) -> None:
    """Concatenates the parts into `path` with bounded memory.

    Raises:
        InferenceError: Their layouts differ.
    """
    filled = [part for part in parts if part.num_rows] or list(parts[:1])
    for part in filled[1:]:
        if part.layout != filled[0].layout:
            raise InferenceError(_differs(part.first_row, part.layout, filled[0].layout, path.suffix))
    if path.suffix == ".parquet":
        _join_parquet(filled, path)
        return
    with path.open("wb") as file:
        if path.suffix == ".npy":
            _write_npy_header(file, filled[0].layout, sum(part.num_rows for part in parts))
        for part in filled:
            with part.path.open("rb") as source:
                shutil.copyfileobj(source, file, _COPY_BYTES)
            part.path.unlink()


_OTHERS = "use .parquet or .jsonl"


class _NpyPart:
    """Rows of equal shape and type, as raw bytes."""

    def __init__(self, path: Path, first_row: int) -> None:
        self._path, self._first_row = path, first_row
        self._file = path.open("wb")
        self._num_rows = 0
        self._layout: tuple[tuple[int, ...], str] | None = None

    def write(self, columns: Columns) -> None:
        """Appends a batch of one tensor."""
        array = columns.get(OUTPUT)
        if len(columns) != 1 or array is None:
            names = ", ".join(columns)
            raise InferenceError(f".npy stores one tensor, but the outputs are named columns: {names}; {_OTHERS}")
        array = numpy.asarray(array)
        if array.dtype.hasobject or array.dtype.kind in "US":
            raise InferenceError(f".npy stores numbers, but the outputs are of type {array.dtype}; {_OTHERS}")
        layout = (array.shape[1:], array.dtype.str)
        if self._layout is None:
            self._layout = layout
        elif layout != self._layout:
            raise InferenceError(_differs(self._first_row + self._num_rows, layout, self._layout, ".npy"))
        self._file.write(numpy.ascontiguousarray(array).data)
        self._num_rows += len(array)

    def close(self) -> Part:
        """Completes the file."""
        self._file.close()
        return Part(self._path, self._num_rows, self._first_row, self._layout)


def _differs(row: int, layout: Any, expected: Any, suffix: str) -> str:
    if suffix == ".npy":
        has, first = (f"shape {tuple(shape)} and type {numpy.dtype(dtype)}" for shape, dtype in (layout, expected))
        return f"row {row}: its output has {has}, but earlier rows have {first}; .npy needs equal shapes; {_OTHERS}"
    return f"row {row}: its outputs have the columns\n{layout}\nbut earlier rows have\n{expected}"


def _write_npy_header(file: BinaryIO, layout: tuple[tuple[int, ...], str] | None, num_rows: int) -> None:
    shape, dtype = layout or ((), "<f4")
    header = {"descr": dtype, "fortran_order": False, "shape": (num_rows, *shape)}
    numpy.lib.format.write_array_header_1_0(file, header)


class _JsonPart:
    """One JSON object per row."""

    def __init__(self, path: Path, first_row: int) -> None:
        self._path, self._first_row = path, first_row
        self._file = path.open("w", encoding="utf-8")
        self._num_rows = 0

    def write(self, columns: Columns) -> None:
        """Appends a line per row."""
        values = {name: column.tolist() if isinstance(column, numpy.ndarray) else column
                  for name, column in columns.items()}  # fmt: skip
        for row in zip(*values.values(), strict=True):
            try:
                line = json.dumps(dict(zip(values, row, strict=True)), allow_nan=False, ensure_ascii=False)
            except (TypeError, ValueError) as error:
                number = self._first_row + self._num_rows
                raise InferenceError(f"row {number}: {_why_no_json(row, error)}; use .parquet or .npy") from None
            self._file.write(f"{line}\n")
            self._num_rows += 1

    def close(self) -> Part:
        """Completes the file."""
        self._file.close()
        return Part(self._path, self._num_rows, self._first_row)


def _why_no_json(row: Any, error: Exception) -> str:
    if _has_no_number(row):
        return "its output is NaN or infinite, which JSON cannot represent"
    return f".jsonl cannot represent its output ({error})"


def _has_no_number(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_no_number, value))
    return isinstance(value, float) and not math.isfinite(value)


class _ParquetPart:
    """Named columns; further dimensions become lists, which may differ in length."""

    def __init__(self, path: Path, first_row: int) -> None:
        self._path, self._first_row = path, first_row
        self._num_rows = 0
        self._schema: Any = None
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        """Appends a row group."""
        import pyarrow
        import pyarrow.parquet

        row = self._first_row + self._num_rows
        try:
            types = {} if self._schema is None else {field.name: field.type for field in self._schema}
            batch = pyarrow.table({name: _to_arrow(column, types.get(name)) for name, column in columns.items()})
        except (pyarrow.ArrowException, TypeError, ValueError, KeyError) as error:
            raise InferenceError(f"row {row} and after: .parquet cannot represent the outputs: {error}") from None
        if self._schema is not None and batch.schema != self._schema:
            raise InferenceError(_differs(row, batch.schema, self._schema, ".parquet"))
        if self._writer is None:
            self._schema = batch.schema
            self._writer = pyarrow.parquet.ParquetWriter(self._path, batch.schema)
        self._writer.write_table(batch)
        self._num_rows += batch.num_rows

    def close(self) -> Part:
        """Completes the file."""
        if self._writer is not None:
            self._writer.close()
        return Part(self._path, self._num_rows, self._first_row, self._schema)


def _to_arrow(column: Column, known: pyarrow.DataType | None) -> pyarrow.Array:
    """A column as an Arrow array: dimensions after the first become nested lists; a list takes its known type."""
    import pyarrow

    if not isinstance(column, numpy.ndarray):
        return pyarrow.array(column, known)
    values = pyarrow.array(numpy.ascontiguousarray(column).reshape(-1))
    for axis in range(column.ndim - 1, 0, -1):
        count, size = int(numpy.prod(column.shape[:axis])), column.shape[axis]
        offsets = numpy.arange(count + 1, dtype=numpy.int64) * size
        values = pyarrow.LargeListArray.from_arrays(pyarrow.array(offsets), values)
    return values


def _join_parquet(parts: Sequence[Part], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = parts[0].layout if parts and parts[0].layout is not None else pyarrow.schema([])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for part in parts:
            if part.layout is None:
                continue
            with pyarrow.parquet.ParquetFile(part.path) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
            part.path.unlink()
