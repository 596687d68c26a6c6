"""The linear job: data drawn from a known model, and a final loss close to that model's."""

import pytest
import torch

from jobs.linear import Drawn, LogSoftmaxLinear, optimal_loss, true_model


@pytest.mark.parametrize(("split", "length"), [("train", 8192), ("test", 2048)])
def test_samples_are_features_and_classes(split, length):
    inputs, targets = Drawn(split).tensors
    assert (inputs.shape, inputs.dtype) == ((length, 10), torch.float32)
    assert (targets.shape, targets.dtype) == ((length,), torch.int64)
    assert targets.unique().tolist() == [0, 1]


def test_data_is_the_same_every_time():
    for first, second in zip(Drawn("test").tensors, Drawn("test").tensors, strict=True):
        assert torch.equal(first, second)


def test_making_data_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Drawn("test")
    assert torch.equal(torch.get_rng_state(), before)


def test_splits_differ():
    assert not torch.equal(Drawn("train").tensors[0][:10], Drawn("test").tensors[0][:10])


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="train and test, not 'eval'"):
        Drawn("eval")


def test_model_gives_log_probabilities():
    outputs = LogSoftmaxLinear()(torch.randn(4, 10))
    torch.testing.assert_close(outputs.exp().sum(dim=-1), torch.ones(4))


def test_no_step_from_the_true_model_lowers_the_training_loss_much():
    """The loss is convex, so that its gradient at the true model bounds what is left to gain."""
    inputs, targets = Drawn("train").tensors
    model = true_model().requires_grad_(True)
    loss = torch.nn.functional.nll_loss(model(inputs), targets)
    loss.backward()
    assert loss.item() == pytest.approx(optimal_loss("train"))
    assert torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm() < 0.02


def test_run_ends_near_the_optimum(run_job):
    run = run_job("linear.yaml")
    assert run.events("eval")[-1]["loss"] == pytest.approx(optimal_loss("test"), abs=0.005)
    assert run.events("train")[0]["loss"] > 2 * optimal_loss("train")
