"""State as JSON comes back with the same types and the same bits."""

import json
import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distrib.train.checkpoint.plain_state import dump_state, load_state

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
        return (type(value), [bits(item) for item in value])
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
        ((1, b"bytes"), r"state\[1\] is a bytes"),
        ({"fn": len}, r"state\.fn is a builtin_function_or_method"),
        ({"size": torch.Size([1])}, r"state\.size is a Size"),
    ],
)
def test_what_cannot_come_back_is_refused_by_its_place(state, place):
    with pytest.raises(TypeError, match=place):
        dump_state(state)


def test_a_tensor_with_gradients_elsewhere():
    assert bits(load_state(dump_state(torch.ones(2, requires_grad=True)))) == bits(torch.ones(2))
