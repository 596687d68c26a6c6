"""State as JSON comes back with the same types and the same bits."""

import json
import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distrib.train.checkpoint.plain_state import StateError, dump_state, load_state

INTEGERS = st.integers(-(2**70), 2**70)
FLOATS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 5e-324, math.inf, -math.inf])
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | st.text() | st.just("__kind__")
NUMBERS = INTEGERS | st.floats(allow_nan=False)
KEYS = st.none() | st.booleans() | NUMBERS | st.text() | st.tuples(st.integers(), st.text())


def tensors():
    def make(dtype, numbers, shape):
        return torch.tensor(numbers[: math.prod(shape)], dtype=dtype).reshape(shape)

    shapes = st.sampled_from([(), (1,), (0,), (0, 3), (3, 0), (2, 3), (1, 1, 1)])
    floating = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
    integral = st.sampled_from([torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
    narrow = st.floats(width=16)
    return st.builds(make, floating, st.lists(narrow, min_size=6, max_size=6), shapes) | st.builds(
        make, integral, st.lists(st.integers(0, 1), min_size=6, max_size=6), shapes
    )


STATES = st.recursive(
    SCALARS | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(deque)
        | st.lists(inner, max_size=4).map(lambda items: deque(items, maxlen=4))
        | st.sets(KEYS, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(KEYS, st.integers(), max_size=4).map(Counter)
    ),
    max_leaves=20,
)


def bits(value):
    """What makes two states the same: types, order and bits."""
    if isinstance(value, torch.Tensor):
        return ("tensor", value.dtype, tuple(value.shape), [bits(item) for item in value.flatten().tolist()])
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else struct.pack("d", value))
    if isinstance(value, dict):
        return (type(value), [(bits(key), bits(item)) for key, item in value.items()])
    if isinstance(value, set):
        return (set, sorted(map(repr, value)))
    if isinstance(value, list | tuple | deque):
        return (type(value), getattr(value, "maxlen", None), [bits(item) for item in value])
    return (type(value), value)


@given(STATES)
def test_everything_comes_back(state):
    text = dump_state(state)
    assert bits(load_state(text)) == bits(state)
    json.loads(text)


def test_what_looks_like_its_own_marks_comes_back():
    state = {"__kind__": "tuple", "items": [{"__kind__": "tensor"}], "pairs": {"__kind__": "dict"}}
    assert load_state(dump_state(state)) == state


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"a": [1, {2: object()}]}, r"state\.a\[1\]\.2 is a object"),
        ({"groups": [defaultdict(list)]}, r"state\.groups\[0\] is a defaultdict"),
        ({"fn": len}, r"state\.fn is a builtin_function_or_method"),
        ({"size": torch.Size([1])}, r"state\.size is a Size"),
    ],
)
def test_what_cannot_come_back_is_refused_by_its_place(state, place):
    with pytest.raises(StateError, match=place):
        dump_state(state)


def test_a_tensor_with_gradients_elsewhere():
    assert bits(load_state(dump_state(torch.ones(2, requires_grad=True)))) == bits(torch.ones(2))


@pytest.mark.parametrize(
    "value",
    [
        numpy.linspace(0.1, 0.01, 7),
        numpy.arange(6, dtype=numpy.int16).reshape(2, 3).T,
        numpy.zeros((0, 3), dtype=bool),
        numpy.array(1.5 + 2j),
        numpy.float32(0.1),
        numpy.int64(7),
        numpy.bool_(True),
    ],
)
def test_numpy_values_come_back_with_type_shape_and_bits(value):
    found = load_state(dump_state({"a": [value]}))["a"][0]
    assert (type(found), found.dtype, found.shape) == (type(value), value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"ab")])
def test_bytes_come_back(value):
    found = load_state(dump_state(value))
    assert (type(found), found) == (type(value), value)


def test_what_cannot_be_kept_is_named():
    with pytest.raises(StateError, match=r"state\.a\[1\] is a object, which a checkpoint cannot hold"):
        dump_state({"a": [1, object()]})
    with pytest.raises(StateError, match=r"state\.a is a NumPy array of type object"):
        dump_state({"a": numpy.array([None])})
