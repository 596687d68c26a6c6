"""The wire format: request and response bodies in JSON or raw bytes, checked against the input signature."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy

from distrib.inference.columns import OUTPUT, Columns
from distrib.inference.signature import INPUTS, InputSignature, TensorSignature

JSON_TYPE, RAW_TYPE = "application/json", "application/octet-stream"
SHAPE_HEADER, DTYPE_HEADER = "x-shape", "x-dtype"
_NUMPY_NAMES = {"bfloat16": "float32"}
"""Types that are sent as another type with the same values."""

Arrays = dict[str, numpy.ndarray[Any, Any]]


class RefusedError(Exception):
    """A request that is rejected.

    Attributes:
        status: The HTTP status.
        detail: What is wrong.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def read_json(body: bytes, signature: InputSignature) -> tuple[Arrays, int]:
    """Reads the tensors of `{"inputs": …}` by name, and their number of rows.

    Raises:
        RefusedError: 400 if the body is not JSON, 422 if it does not match the signature.
    """
    try:
        data = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RefusedError(400, f"the body is not JSON: {reason}") from None
    if not isinstance(data, dict) or data.keys() != {INPUTS}:
        raise RefusedError(422, f'the body must be a JSON object with the key "{INPUTS}" alone')
    values = data[INPUTS] if signature.is_named else {INPUTS: data[INPUTS]}
    if not isinstance(values, dict) or values.keys() != signature.tensors.keys():
        names = ", ".join(signature.tensors)
        raise RefusedError(422, f'"{INPUTS}" must be an object with the keys {names}')
    arrays = {name: _from_list(name, values[name], tensor) for name, tensor in signature.tensors.items()}
    return arrays, _num_rows(arrays)


def read_raw(body: bytes, signature: InputSignature, headers: Mapping[str, str]) -> tuple[Arrays, int]:
    """Reads a tensor from its little-endian values in row-major order, and its number of rows.

    The optional headers `X-Shape: 3,64` and `X-Dtype: float32` are checked.

    Raises:
        RefusedError: 415 if the inputs are several tensors, 422 if the body does not match the signature.
    """
    if signature.is_named:
        raise RefusedError(415, f"the inputs of this model are several tensors; send them as {JSON_TYPE}")
    tensor = signature.tensors[INPUTS]
    dtype = numpy.dtype(_numpy_name(tensor)).newbyteorder("<")
    header_dtype = headers.get(DTYPE_HEADER, dtype.name)
    if header_dtype != dtype.name:
        raise RefusedError(422, f"the values must be {dtype.name}, not {header_dtype}")
    row_bytes = int(numpy.prod(tensor.row_shape)) * dtype.itemsize
    if not body or row_bytes == 0 or len(body) % row_bytes:
        expected = _shown((None, *tensor.row_shape))
        raise RefusedError(422, f"{len(body)} bytes are not {expected} of {dtype.name}; a row has {row_bytes} bytes")
    shape = (len(body) // row_bytes, *tensor.row_shape)
    header_shape = headers.get(SHAPE_HEADER)
    if header_shape is not None and [part.strip() for part in header_shape.split(",")] != [str(size) for size in shape]:
        raise RefusedError(422, f"X-Shape says {header_shape}, but the body is {_shown(shape)}")
    array = numpy.frombuffer(body, dtype).reshape(shape)
    _check_finite(INPUTS, array)
    return {INPUTS: array.astype(dtype.newbyteorder("="))}, shape[0]


def write_json(columns: Columns) -> bytes:
    """Writes `{"outputs": …}`: a nested list, or an object of lists by name; NaN and infinities become null.

    Raises:
        RefusedError: 500 if JSON cannot represent the result of the job's `predict`.
    """
    lists = {name: _to_list(column) for name, column in columns.items()}
    outputs = lists[OUTPUT] if lists.keys() == {OUTPUT} else lists
    try:
        return _ENCODER.encode({"outputs": outputs}).encode()
    except (TypeError, ValueError) as error:
        raise RefusedError(500, f"the outputs cannot be written as JSON: {error}") from None


def write_raw(columns: Columns) -> tuple[bytes, dict[str, str]]:
    """Writes the bytes of the only tensor, and the headers that describe it.

    Raises:
        RefusedError: 406 if the outputs are not a single tensor.
    """
    array = columns.get(OUTPUT)
    if len(columns) != 1 or not isinstance(array, numpy.ndarray) or array.dtype.hasobject:
        raise RefusedError(406, f"the outputs are named columns; ask for {JSON_TYPE}")
    array = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return array.tobytes(), {SHAPE_HEADER: ",".join(map(str, array.shape)), DTYPE_HEADER: array.dtype.name}


def json_schema(signature: InputSignature) -> dict[str, Any]:
    """The JSON Schema of a request's body."""
    tensors = {name: _tensor_schema(tensor) for name, tensor in signature.tensors.items()}
    inputs = _object_schema(tensors) if signature.is_named else tensors[INPUTS]
    return _object_schema({INPUTS: inputs})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _tensor_schema(tensor: TensorSignature) -> dict[str, Any]:
    kind = numpy.dtype(_numpy_name(tensor)).kind
    schema: dict[str, Any] = {"type": {"f": "number", "b": "boolean"}.get(kind, "integer")}
    for size in reversed(tensor.row_shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return {"type": "array", "items": schema, "minItems": 1, "description": f"{tensor.dtype}, one row per prediction"}


def _numpy_name(tensor: TensorSignature) -> str:
    return _NUMPY_NAMES.get(tensor.dtype, tensor.dtype)


def _from_list(name: str, values: Any, tensor: TensorSignature) -> numpy.ndarray[Any, Any]:
    """Converts nested lists to an array of the signature's type and shape."""
    dtype = numpy.dtype(_numpy_name(tensor))
    expected = _shown((None, *tensor.row_shape))
    try:
        array = numpy.array(values)
    except (ValueError, OverflowError):
        raise RefusedError(422, f'"{name}" must have the shape {expected}; its lists differ in length') from None
    if array.shape[1:] != tensor.row_shape or array.ndim == 0 or not len(array):
        raise RefusedError(422, f'"{name}" must have the shape {expected}, not {_shown(array.shape)}')
    kinds = {"f": "fiu", "b": "b"}.get(dtype.kind, "iu")
    if array.dtype.kind not in kinds:
        what = {"f": "numbers", "b": "true or false"}.get(dtype.kind, "whole numbers")
        raise RefusedError(422, f'"{name}" must consist of {what} ({tensor.dtype})')
    with numpy.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind in "iu" and not numpy.array_equal(converted, array):
        raise RefusedError(422, f'"{name}" has numbers that are too large for {tensor.dtype}')
    _check_finite(name, converted)
    return converted


def _check_finite(name: str, array: numpy.ndarray[Any, Any]) -> None:
    if array.dtype.kind == "f" and not numpy.isfinite(array).all():
        row = int(numpy.argwhere(~numpy.isfinite(array))[0][0])
        raise RefusedError(422, f'"{name}" has a value in row {row} that is NaN or too large for {array.dtype.name}')


def _num_rows(arrays: Arrays) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        lengths_text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise RefusedError(422, f"the inputs must have equal numbers of rows, but have: {lengths_text}")
    return next(iter(lengths.values()))


def _shown(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("rows" if size is None else str(size) for size in shape) + "]"


def _to_list(column: Any) -> Any:
    if not isinstance(column, numpy.ndarray):
        return _without_nan(column)
    if column.dtype.kind == "f" and not numpy.isfinite(column).all():
        is_finite, column = numpy.isfinite(column), column.astype(object)
        column[~is_finite] = None
    return column.tolist()


def _without_nan(value: Any) -> Any:
    """Nested lists with None for every float that is not finite."""
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
