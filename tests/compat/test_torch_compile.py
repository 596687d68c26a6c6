"""The names in the state of compiled modules."""

import pytest
import torch
from torch import nn

from distrib.compat.pytorch.compile import own_names


@pytest.mark.relies_on("torch._dynamo.eval_frame.OptimizedModule._orig_mod")
def test_a_compiled_module_has_the_names_of_the_module_itself():
    model = nn.Sequential(torch.compile(nn.Linear(2, 2)), nn.Linear(2, 1))
    names = own_names(torch.compile(model).state_dict())
    assert list(names.values()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert all("_orig_mod" in name for name in names)


def test_names_that_would_become_equal_stay():
    assert own_names(["a._orig_mod.b", "a.b", "c._orig_mod.d"]) == {
        "a._orig_mod.b": "a._orig_mod.b",
        "a.b": "a.b",
        "c._orig_mod.d": "c.d",
    }
