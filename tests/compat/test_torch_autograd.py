"""What distrib reads from the nodes of autograd's graph is there, and what happens without it."""

import pytest
import torch
from torch.nn import functional

from distrib.compat.pytorch.autograd import saved
from distrib.train.objective.loss_graph import LossGraph


@pytest.mark.relies_on(
    "torch.autograd.graph.Node._saved_reduction, _saved_total_weight, _saved_target, _saved_other, _saved_self, "
    "_saved_self_sym_sizes, _saved_self_sym_numel, _saved_dim, _raw_saved_target and the like, their unpack_hook"
)
def test_what_nodes_have_saved():
    scores = torch.randn(4, 3, requires_grad=True)
    loss = functional.cross_entropy(scores, torch.tensor([0, 1, -100, 2]))
    assert saved(loss.grad_fn, "reduction") == 1
    assert float(saved(loss.grad_fn, "total_weight")) == 3
    assert saved(loss.grad_fn, "target").numel() == 4
    divided = scores.sum() / torch.tensor(5.0)
    assert float(saved(divided.grad_fn, "other")) == 5
    assert list(saved(divided.grad_fn.next_functions[0][0], "self_sym_sizes")) == [4, 3]
    assert saved(divided.grad_fn, "target") is None
    assert saved(scores.sum(0).grad_fn, "dim") == (0,)
    assert saved(scores.sum(-2).grad_fn, "dim") == (2**64 - 2,)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: pytest.fail("unpacked")):
        hooked = functional.cross_entropy(scores, torch.tensor([0, 1, -100, 2]))
    assert saved(hooked.grad_fn, "target") is None
    assert saved(hooked.grad_fn, "reduction") == 1
    assert saved(scores.mean().grad_fn, "self_sym_numel") == 12
    assert saved(functional.mse_loss(scores, torch.ones(4, 3)).grad_fn, "self").numel() == 12


def test_without_saved_values_nothing_is_reported(monkeypatch):
    loss = functional.cross_entropy(torch.randn(2, 3, requires_grad=True), torch.tensor([0, -100]))
    assert LossGraph().find(loss, 2) is not None
    monkeypatch.setattr("distrib.train.objective.loss_graph.saved", lambda node, name: None)
    assert LossGraph().find(loss, 2) is None
