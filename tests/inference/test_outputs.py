"""Model outputs become named columns."""

from typing import NamedTuple

import numpy
import pytest
import torch

from distrib.errors import InferenceError
from distrib.inference.outputs import check_rows, name_outputs, to_numpy
from distrib.inference.predictor import Predictor, inputs_of

ROWS = torch.ones(3, 2)


class Pair(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor


def test_names():
    assert list(name_outputs(ROWS)) == ["output"]
    assert list(name_outputs((ROWS, ROWS))) == ["output_0", "output_1"]
    assert list(name_outputs({"logits": ROWS, "loss": None})) == ["logits"]
    assert list(name_outputs(Pair(ROWS, ROWS))) == ["mean", "spread"]
    for wrong in ("text", None, 3, [1, 2], {}):
        with pytest.raises(InferenceError):
            name_outputs(wrong)


@pytest.mark.parametrize("column", [torch.ones(2), torch.tensor(1.0), [1, 2], "abc", numpy.ones((4, 3))])
def test_a_column_has_an_entry_for_each_row(column):
    check_rows({"output": torch.ones(3)}, 3)
    with pytest.raises(InferenceError, match="the output must have one entry for each of 3 rows"):
        check_rows({"output": column}, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool])
def test_values_survive_the_way_to_numpy(dtype):
    tensor = torch.tensor([0.0, 1.0, 1.0]).to(dtype)
    array = to_numpy(tensor)
    assert array.tolist() == tensor.tolist()
    assert array.dtype == (
        numpy.float32 if dtype == torch.bfloat16 else getattr(numpy, str(dtype)[6:].replace("bool", "bool_"))
    )


def test_what_of_a_batch_the_model_is_given():
    named = {"left": ROWS}
    assert inputs_of(ROWS) is ROWS
    assert inputs_of([ROWS, torch.zeros(3)]) is ROWS
    assert inputs_of([ROWS]) is ROWS
    assert inputs_of((named, ROWS)) is named
    with pytest.raises(InferenceError, match="are a list of 3; define with predict: in the job"):
        inputs_of([ROWS, ROWS, ROWS])


def test_the_forward_path_computes_without_gradients_in_the_precision_asked_for():
    seen = []

    class Noting(torch.nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            seen.append((torch.is_grad_enabled(), outputs.dtype))
            return outputs

    model = Noting(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        columns = Predictor(model, torch.device("cpu"), precision)([ROWS, torch.zeros(3)], 3)
        assert seen.pop() == (False, dtype)
        assert columns["output"].dtype == numpy.float32
