"""The input signature: reading, rejection, and synthetic batches that match it."""

import pytest
import torch

from distrib.errors import InferenceError
from distrib.inference.signature import InputSignature
from distrib.train.data.batches import describe

FLOATS, LABELS = torch.zeros(5, 4, 2), torch.zeros(5, dtype=torch.int64)
TOKENS = torch.zeros(5, 8, dtype=torch.int64)
BATCHES = {
    "a tensor": FLOATS,
    "a list of one": [FLOATS],
    "inputs and targets": [FLOATS, LABELS],
    "tokens": [TOKENS, TOKENS],
    "named inputs and targets": [{"left": FLOATS, "right": TOKENS}, LABELS],
    "named": {"left": FLOATS, "right": TOKENS},
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_made_up_batch_has_the_form_of_those_in_training(batch):
    form = InputSignature.of(describe(batch))
    made = form.example(5)
    has_targets = isinstance(batch, list) and len(batch) == 2
    assert describe(made) == describe([batch[0], None] if has_targets else batch)
    assert torch.equal(describe_sum(form.example(3)), describe_sum(form.example(3)))


def describe_sum(batch):
    inputs = batch[0] if isinstance(batch, list) else batch
    return sum(tensor.double().sum() for tensor in (inputs.values() if isinstance(inputs, dict) else [inputs]))


WRONG = {
    "none": (None, "has no input signature"),
    "three parts": ([describe(FLOATS)] * 3, "batches of 3 parts"),
    "text": (["str", describe(LABELS)], "are not tensors"),
    "nested": ([{"a": {"b": describe(FLOATS)}}, None], "are not tensors"),
    "a scalar": ([{"shape": [], "dtype": "float32"}, None], "no batch dimension"),
}


@pytest.mark.parametrize(("signature", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_served_is_refused(signature, message):
    with pytest.raises(InferenceError, match=message):
        InputSignature.of(signature)
