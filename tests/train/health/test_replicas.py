"""Ranks that no longer hold the same are found at the next checkpoint, or at the end, and named with the tensor."""

import pytest
import torch
from torch import nn

from distrib.train.health.replicas import Checksums, Identity, _difference, checksum, cpu_model, hardware_of

HERE, THERE = Identity("node0", "AVX2"), Identity("node1", "AVX512")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        pytest.param("fault-drift-2", "is not the same on ranks 0, 1", marks=pytest.mark.runs("fault-drift-2")),
        pytest.param("fault-drift-3", "on rank 1 is not what the other ranks", marks=pytest.mark.runs("fault-drift-3")),
    ],
)
def test_a_weight_that_one_rank_changes_ends_the_run_at_the_next_checkpoint(runs, name, ranks):
    run = runs[name]
    error = run.output["error"]
    assert (run.exit_code, error["type"], error["kind"]) == (1, "DriftError", "user")
    assert f"the ranks no longer hold the same at step 5: model.layer.weight {ranks}" in error["message"]
    assert name == "fault-drift-2" or error["rank"] == 1
    assert not list(run.layout.checkpoints.glob("*/COMMITTED"))
    assert not run.events("restart")
    assert not run.layout.weights_file.exists()


@pytest.mark.timeout(120)
@pytest.mark.runs("fault-drift-own-3")
def test_a_step_with_an_optimizer_of_its_own_is_found(run):
    assert run.output["error"]["type"] == "DriftError"
    assert (
        "model.layer.weight is not the same on ranks 0, 1, 2 (and 1 more, such as model.layer.bias)"
        in run.output["error"]["message"]
    )
    assert "look for an optimizer that the job's own code steps" in run.output["error"]["message"]


@pytest.mark.timeout(120)
@pytest.mark.runs("fault-drift-unsaved")
def test_without_checkpoints_it_is_found_at_the_end(run):
    assert run.output["error"]["type"] == "DriftError"
    assert "at step 6" in run.output["error"]["message"]
    assert not run.layout.weights_file.exists()


@pytest.mark.timeout(120)
@pytest.mark.runs("fault-drift-warn")
def test_a_job_may_continue_with_a_warning(run):
    assert run.exit_code == 0
    messages = [event["message"] for event in run.events("warning")]
    (message,) = [each for each in messages if "plain attributes" not in each]
    assert "at step 4: model.layer.weight is not the same on ranks 0, 1" in message


def sums(tensor):
    return tuple(int(value) for value in checksum(tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.complex64])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 5), (7, 3)])
def test_the_smallest_change_of_any_element_changes_the_checksum(dtype, shape):
    tensor = torch.ones(shape, dtype=dtype)
    same = sums(tensor)
    assert sums(tensor.clone()) == same
    for number in range(tensor.numel()):
        changed = tensor.clone().contiguous()
        changed.view(-1).view(torch.uint8)[number * tensor.element_size()] ^= 1
        assert sums(changed) != same


@pytest.mark.parametrize("num_moved", [1, 2, 4, 64])
def test_elements_that_move_alike_or_in_opposite_directions_change_it(num_moved):
    tensor = torch.ones(64)
    up, both = tensor.clone(), tensor.clone()
    up[:num_moved] += 1e-6
    both[0] += 1e-6
    both[2] = torch.nextafter(both[2], torch.tensor(0.0))
    assert len({sums(tensor), sums(up), sums(both)}) == 3


def test_layout_and_place_in_storage_do_not_matter():
    tensor = torch.randn(4, 6)
    buffer = torch.empty(25)
    buffer[1:].copy_(tensor.view(-1))
    assert sums(tensor.t().contiguous().t()) == sums(tensor) == sums(buffer[1:].view(4, 6))


class State:
    """As `TrainingState` has them."""

    def __init__(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.models = {"model": model}
        self.optimizers = {"optimizer": torch.optim.AdamW(model.parameters())}


def test_weights_and_optimizer_state_are_compared_and_buffers_are_not():
    state = State()
    model, optimizer = state.models["model"], state.optimizers["optimizer"]
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    before = Checksums.of(state).read()
    model[1].running_mean += 1
    assert Checksums.of(state).read() == before
    optimizer.state[model[0].weight]["exp_avg"][0, 0] += 1e-6
    after = Checksums.of(state).read()
    assert {name for name in before if before[name] != after[name]} == {"exp_avg of model.0.weight"}


def test_a_difference_names_the_rank_in_the_minority_and_its_host():
    common, other = {"a": (1, 1), "b": (2, 2)}, {"a": (1, 1), "b": (3, 3)}
    found = _difference([(common, HERE), (other, THERE), (common, HERE)])
    assert (found.rank, found.host, found.is_same_hardware) == (1, "node1", False)
    assert found.description == "b on rank 1 is not what the other ranks have"


def test_state_that_some_ranks_lack_differs():
    found = _difference([({"a": (1, 1)}, HERE), ({}, HERE), ({}, HERE), ({"a": (1, 1)}, HERE)])
    assert found.description == "a is not the same on ranks 0, 1, 2, 3"
    assert found.is_same_hardware
    assert found.is_partial


def test_a_weight_that_differs_counts_even_if_other_state_is_split():
    found = _difference([({"a": (1, 1), "b": (1, 1)}, HERE), ({"a": (2, 2)}, HERE)])
    assert found.description.startswith("a is not the same")
    assert not found.is_partial


def test_hosts_with_other_cpus_are_other_hardware(monkeypatch):
    here = hardware_of(torch.device("cpu"))
    assert cpu_model() in here
    monkeypatch.setattr("distrib.train.health.replicas.cpu_model", lambda: "another model")
    assert hardware_of(torch.device("cpu")) != here
