"""Batches of any nest of tuples, dicts, dataclasses and named tuples."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from distrib.train.data.batches import describe, map_tensors, tensors_in, to_device

Pair = namedtuple("Pair", "first second")


@dataclass
class Sentence:
    tokens: Any
    name: str = "none"
    length: int = field(init=False, default=0)


@dataclass(frozen=True)
class Frozen:
    values: Any


def batch():
    ones = torch.ones(2, 3)
    return ({"a": [ones, Pair(ones, "text")], "b": None}, Sentence((ones,), name="x"), Frozen({"c": ones}), 7)


def test_every_tensor_is_mapped_and_all_else_kept():
    first, sentence, frozen, number = map_tensors(batch(), lambda tensor: tensor + 1)
    twos = torch.full((2, 3), 2.0)
    assert torch.equal(first["a"][0], twos)
    assert type(first["a"][1]) is Pair
    assert torch.equal(first["a"][1].first, twos)
    assert (first["a"][1].second, first["b"], number) == ("text", None, 7)
    assert type(sentence) is Sentence
    assert (type(sentence.tokens), sentence.name) == (tuple, "x")
    assert torch.equal(sentence.tokens[0], twos)
    assert type(frozen) is Frozen
    assert torch.equal(frozen.values["c"], twos)


def test_the_batch_itself_is_not_changed():
    original = batch()
    map_tensors(original, torch.zeros_like)
    assert bool(original[0]["a"][0].all())
    assert bool(original[1].tokens[0].all())


def test_a_bare_tensor_and_what_holds_none():
    assert map_tensors(torch.ones(1), lambda tensor: tensor.dtype) == torch.float32
    assert map_tensors("text", lambda tensor: None) == "text"
    assert map_tensors(Sentence, lambda tensor: None) is Sentence


def test_a_description_is_plain_data():
    tensor = {"shape": [None, 3], "dtype": "float32"}
    assert describe(batch()) == [
        {"a": [tensor, {"first": tensor, "second": "str"}], "b": "NoneType"},
        {"tokens": [tensor], "name": "str", "length": "int"},
        {"values": {"c": tensor}},
        "int",
    ]
    assert describe(torch.tensor(1, dtype=torch.int64)) == {"shape": [], "dtype": "int64"}
    assert describe({1: torch.ones(4, dtype=torch.bfloat16)}) == {"1": {"shape": [None], "dtype": "bfloat16"}}


class Encoding(UserDict):
    """As a tokenizer's: entries are attributes too."""

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


class Moving:
    """Moves itself, as an encoding or a graph does."""

    def __init__(self, values):
        self.values = values
        self.device = "cpu"

    def to(self, device):
        self.device = str(device)
        self.values = self.values.to(device)
        return self


class Row(list):
    """A list of a class of its own."""


ONES = torch.ones(2)


@pytest.mark.parametrize(
    ("batch", "get"),
    [
        (Encoding(x=ONES, name="a"), lambda batch: batch.x),
        (OrderedDict(x=ONES), lambda batch: batch["x"]),
        (defaultdict(list, x=ONES), lambda batch: batch["x"]),
        (Row([ONES]), lambda batch: batch[0]),
        ((Encoding(x=ONES),), lambda batch: batch[0].x),
        (Sentence(ONES), lambda batch: batch.tokens),
    ],
)
def test_containers_keep_their_class_in_a_copy_and_are_returned_where_nothing_changes(batch, get):
    changed = map_tensors(batch, lambda tensor: tensor + 1)
    assert type(changed) is type(batch)
    assert (get(changed).tolist(), get(batch).tolist()) == ([2, 2], [1, 1])
    assert to_device(batch, torch.device("cpu")) is batch


def test_what_a_dataclass_holds_beside_its_arguments_is_kept():
    sentence = Sentence(ONES)
    sentence.length = 7
    assert map_tensors(sentence, lambda tensor: tensor + 1).length == 7


def test_an_object_that_moves_itself_does():
    moving = to_device({"a": Moving(ONES)}, torch.device("meta"))["a"]
    assert (moving.device, moving.values.device.type) == ("meta", "meta")


def test_lengths_of_packed_sequences_stay_on_the_host():
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2, 1), torch.ones(1, 1)])
    moved = to_device((packed, ONES), torch.device("meta"))[0]
    assert (moved.data.device.type, moved.batch_sizes.device.type) == ("meta", "cpu")


def test_tensors_are_found_in_any_object():
    holder = Moving(ONES)
    holder.itself = holder
    found = list(tensors_in([Encoding(x=torch.zeros(1)), holder, Sentence(torch.zeros(3)), "text", Moving]))
    assert [len(tensor) for tensor in found] == [1, 2, 3]
