"""Request bodies are checked against the signature."""

import json

import jsonschema
import numpy
import pytest

from distrib.inference.serving.wire_format import RefusedError, json_schema, read_json, read_raw, write_json, write_raw
from distrib.inference.signature import InputSignature

SINGLE = InputSignature.of([{"shape": [None, 2], "dtype": "float32"}, None])
TOKENS = InputSignature.of({"shape": [None, 2], "dtype": "int16"})
FLAGS = InputSignature.of({"shape": [None], "dtype": "bool"})
NAMED = InputSignature.of(
    [{"a": {"shape": [None, 1], "dtype": "float64"}, "b": {"shape": [None], "dtype": "int64"}}, None]
)


def body(inputs):
    return json.dumps({"inputs": inputs}).encode()


GOOD = {
    "floats": (SINGLE, [[1, 2.5], [3, 4]]),
    "tokens": (TOKENS, [[1, 32767]]),
    "flags": (FLAGS, [True, False]),
    "named": (NAMED, {"a": [[1.5], [2]], "b": [1, 2]}),
}


@pytest.mark.parametrize(("form", "inputs"), GOOD.values(), ids=GOOD)
def test_what_fits_comes_as_arrays(form, inputs):
    arrays, num_rows = read_json(body(inputs), form)
    given = inputs if form.is_named else {"inputs": inputs}
    assert {name: array.tolist() for name, array in arrays.items()} == given
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        name: tensor.dtype for name, tensor in form.tensors.items()
    }
    assert num_rows == len(next(iter(given.values())))
    jsonschema.validate({"inputs": inputs}, json_schema(form))


BAD = {
    "half": (SINGLE, b'{"inputs": [[1, 2]', 400, "not JSON"),
    "empty": (SINGLE, b"", 400, "not JSON"),
    "not UTF-8": (SINGLE, b"\xff\xfe\xfa", 400, "not JSON"),
    "deep": (SINGLE, b"[" * 100_000, 400, "nested too deeply"),
    "NaN": (SINGLE, b'{"inputs": [[NaN, 1]]}', 400, "NaN is not a JSON number"),
    "infinity": (SINGLE, b'{"inputs": [[1, -Infinity]]}', 400, "-Infinity is not a JSON number"),
    "a list": (SINGLE, b"[1]", 422, 'the key "inputs" alone'),
    "another key": (SINGLE, b'{"inputs": [[1, 2]], "x": 1}', 422, 'the key "inputs" alone'),
    "no rows": (SINGLE, body([]), 422, "must have the shape [rows, 2], not [0]"),
    "one row bare": (SINGLE, body([1, 2]), 422, "must have the shape [rows, 2], not [2]"),
    "a number": (SINGLE, body(1), 422, "must have the shape"),
    "ragged": (SINGLE, body([[1, 2], [3]]), 422, "lists differ in length"),
    "text": (SINGLE, body([["1", "2"]]), 422, "must consist of numbers (float32)"),
    "null": (SINGLE, body([[1, None]]), 422, "must consist of numbers"),
    "too large": (SINGLE, body([[1, 2], [1e300, 2]]), 422, "in row 1 that is NaN or too large for float32"),
    "too large for any": (SINGLE, b'{"inputs": [[1e999, 1]]}', 422, "too large"),
    "a fraction": (TOKENS, body([[1.5, 2]]), 422, "must consist of whole numbers (int16)"),
    "a large token": (TOKENS, body([[1, 32768]]), 422, "too large for int16"),
    "a huge token": (TOKENS, body([[1, 10**30]]), 422, "whole numbers"),
    "a number as flag": (FLAGS, body([1]), 422, "true or false"),
    "a missing name": (NAMED, body({"a": [[1]]}), 422, "the keys a, b"),
    "unequal rows": (NAMED, body({"a": [[1], [2]], "b": [1]}), 422, "a 2, b 1"),
}


@pytest.mark.parametrize(("form", "content", "status", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(form, content, status, message):
    with pytest.raises(RefusedError) as refused:
        read_json(content, form)
    assert (refused.value.status, message in refused.value.detail) == (status, True), refused.value.detail


def test_raw_bytes_there_and_back():
    rows = numpy.array([[1, 2], [3, 4.5]], "<f4")
    arrays, num_rows = read_raw(rows.tobytes(), SINGLE, {"x-shape": "2, 2", "x-dtype": "float32"})
    assert (arrays["inputs"].tolist(), num_rows) == (rows.tolist(), 2)
    content, headers = write_raw({"output": rows.astype(">f8")})
    assert headers == {"x-shape": "2,2", "x-dtype": "float64"}
    assert numpy.frombuffer(content, "<f8").tolist() == rows.ravel().tolist()


RAW = {
    "a part of a row": (SINGLE, b"1234567", {}, 422, "7 bytes are not [rows, 2] of float32; a row has 8 bytes"),
    "nothing": (SINGLE, b"", {}, 422, "0 bytes"),
    "another type": (SINGLE, bytes(8), {"x-dtype": "float64"}, 422, "must be float32, not float64"),
    "another shape": (SINGLE, bytes(8), {"x-shape": "2,1"}, 422, "X-Shape says 2,1, but the body is [1, 2]"),
    "NaN": (SINGLE, numpy.float32([0, "nan"]).tobytes(), {}, 422, "NaN"),
    "several tensors": (NAMED, bytes(16), {}, 415, "several tensors"),
}


@pytest.mark.parametrize(("form", "content", "headers", "status", "message"), RAW.values(), ids=RAW)
def test_raw_bytes_that_do_not_fit_are_refused(form, content, headers, status, message):
    with pytest.raises(RefusedError) as refused:
        read_raw(content, form, headers)
    assert (refused.value.status, message in refused.value.detail) == (status, True), refused.value.detail


def test_answers():
    columns = {"label": ["é", "b"], "score": numpy.float32([1, "nan"]), "pairs": [[1.5, float("inf")], []]}
    assert json.loads(write_json(columns))["outputs"] == {
        "label": ["é", "b"], "score": [1.0, None], "pairs": [[1.5, None], []],
    }  # fmt: skip
    assert write_json({"output": numpy.ones((1, 2))}) == b'{"outputs":[[1.0,1.0]]}'
    with pytest.raises(RefusedError) as refused:
        write_raw(columns)
    assert refused.value.status == 406
    with pytest.raises(RefusedError) as refused:
        write_json({"label": [object()]})
    assert refused.value.status == 500
