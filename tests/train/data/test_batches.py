"""Batches of any nest of tuples, dicts, dataclasses and named tuples."""

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import torch

from distrib.train.data.batches import describe, map_tensors

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
