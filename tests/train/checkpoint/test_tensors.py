"""Nested state is taken apart into tensors and the rest, and put together again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from distrib.train.checkpoint.plain_state import StoredTensor, dump_state, load_state
from distrib.train.checkpoint.tensors import join_tensors, split_tensors

tensors = st.integers(0, 4).map(lambda size: torch.arange(float(size)))
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
keys = st.integers(0, 3) | st.sampled_from(["a", "b", "a/b", "0"])
states = st.recursive(
    tensors | plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(states, st.booleans())
def test_any_state_comes_back_through_json(state, keeps_small):
    rest, found = split_tensors(state, keeps_small=keeps_small)
    assert same(join_tensors(load_state(dump_state(rest)), found), state)
    assert all(tensor.numel() > 1 for tensor in found.values()) or not keeps_small


def test_tensors_are_named_by_their_path_and_small_ones_may_stay():
    state = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "groups": [{"lr": 0.1}]}
    rest, found = split_tensors(state)
    assert list(found) == ["state/0/exp_avg"]
    assert found["state/0/exp_avg"].data_ptr() == state["state"][0]["exp_avg"].data_ptr()
    assert rest["state"][0]["exp_avg"] == StoredTensor("state/0/exp_avg")
    assert rest["state"][0]["step"] is state["state"][0]["step"]
    assert list(split_tensors(state, keeps_small=False)[1]) == ["state/0/step", "state/0/exp_avg"]


def test_different_paths_that_read_the_same_keep_different_names():
    state = {"a": {"b": torch.ones(2)}, "a/b": torch.zeros(2)}
    rest, found = split_tensors(state)
    assert len(found) == 2
    assert same(join_tensors(rest, found), state)
