"""What distrib relies on in torch beyond its public API, and what happens without it."""

import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState
from torch.nn.parallel import DistributedDataParallel

from distrib.compat.pytorch import ddp as ddp_internals
from distrib.compat.pytorch import distributed
from distrib.compat.pytorch import tensors as torch_tensors
from distrib.compat.pytorch.powersgd import PowerSgdMemory
from distrib.errors import TrainingFailedError


@pytest.mark.relies_on("torch._foreach_mul_")
@pytest.mark.parametrize("has_kernel", [True, False])
def test_tensors_of_several_types_are_multiplied(monkeypatch, has_kernel):
    assert hasattr(torch, "_foreach_mul_")
    if not has_kernel:
        monkeypatch.delattr(torch, "_foreach_mul_")
    tensors = [torch.ones(2), torch.full((3,), 2.0, dtype=torch.bfloat16), torch.full((1,), 3.0)]
    torch_tensors.multiply_(tensors, torch.tensor(0.5, dtype=torch.float64))
    assert [tensor.tolist() for tensor in tensors] == [[0.5] * 2, [1.0] * 3, [1.5]]
    assert [tensor.dtype for tensor in tensors] == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.relies_on("torch.distributed.ProcessGroup.set_timeout")
def test_a_group_has_another_timeout_from_then_on(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=90))
    try:
        group = dist.group.WORLD
        distributed.set_timeout(group, timedelta(seconds=7))
        backend = group._get_backend(torch.device("cpu"))
        assert backend.options._timeout == timedelta(seconds=7)
    finally:
        dist.destroy_process_group()


def test_without_a_way_to_set_it_the_timeout_stays():
    distributed.set_timeout(object(), timedelta(seconds=7))


@pytest.mark.relies_on("PowerSGDState.error_dict, p_memory_dict, q_memory_dict, iter")
def test_powersgd_keeps_its_memory_in_known_fields():
    state = PowerSGDState(process_group=None, start_powerSGD_iter=3)
    memory = PowerSgdMemory(state)
    assert (memory.errors, memory.left_factors, memory.right_factors) == ({}, {}, {})
    memory.iteration = 5
    assert state.iter == memory.iteration == 5
    del state.p_memory_dict
    with pytest.raises(TrainingFailedError, match="p_memory_dict"):
        PowerSgdMemory(state)


@pytest.mark.relies_on("torch.utils._pytree.tree_leaves")
@pytest.mark.parametrize("has_trees", [True, False])
def test_tensors_of_nested_containers_in_order(monkeypatch, has_trees):
    if not has_trees:
        monkeypatch.setitem(sys.modules, "torch.utils._pytree", None)
    first, second, third = torch.ones(1), torch.ones(2), torch.ones(3)
    assert [len(t) for t in torch_tensors.tensors_in({"a": first, "b": [second, (None, third)], "c": 4})] == [1, 2, 3]


@pytest.mark.relies_on("torch.nn.parallel.DistributedDataParallel._get_ddp_logging_data")
def test_the_buckets_of_ddp(tmp_path, monkeypatch):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        layers = torch.nn.Sequential(torch.nn.Linear(400, 400, bias=False), torch.nn.Linear(400, 400, bias=False))
        model = DistributedDataParallel(layers, bucket_cap_mb=0.5)
        for _ in range(3):  # rebuilt after the first, reported in the third
            model(torch.ones(1, 400)).sum().backward()
        assert ddp_internals.bucket_layout(model) == [[1], [0]]
        assert ddp_internals.bucket_bytes(model)
        monkeypatch.delattr(DistributedDataParallel, "_get_ddp_logging_data")
        assert ddp_internals.bucket_layout(model) == ddp_internals.bucket_bytes(model) == []
    finally:
        dist.destroy_process_group()


@pytest.fixture
def alone(tmp_path):
    """This process as the only rank of a group."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Branches(torch.nn.Module):
    """Two layers whose gradients become ready in the order in which they were not used; or only one is used."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (torch.nn.Linear(300, 300, bias=False) for _ in range(2))

    def forward(self, inputs, is_reversed=False, is_short=False):
        if is_short:
            return self.second(inputs).sum()
        layers = (self.second, self.first) if is_reversed else (self.first, self.second)
        return layers[1](layers[0](inputs)).sum()


@pytest.mark.relies_on(
    "torch.nn.parallel.DistributedDataParallel._build_params_for_reducer",
    "torch.distributed.Reducer._push_all_rebuilt_params",
    "torch.distributed.Reducer._rebuild_buckets",
    "torch.distributed.Logger.set_runtime_stats_and_log",
)
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("is_reversed", [False, True])
def test_ddp_is_built_with_the_order_of_another_and_keeps_it(is_reversed):
    assert ddp_internals.is_supported()
    model = ddp_internals.with_ready_order(Branches(), None, bucket_cap_mb=0.3)
    assert ddp_internals.ready_order(model) is None
    model(torch.ones(1, 300), is_reversed).backward()
    order = ["first.weight", "second.weight"] if is_reversed else ["second.weight", "first.weight"]
    assert ddp_internals.ready_order(model) == order
    resumed = ddp_internals.with_ready_order(Branches(), order, bucket_cap_mb=0.3)
    assert ddp_internals.ready_order(resumed) == order
    for _ in range(3):
        resumed(torch.ones(1, 300), not is_reversed).backward()
    assert ddp_internals.ready_order(resumed) == order
    assert ddp_internals.bucket_layout(resumed) == [[0], [1]]


@pytest.mark.relies_on("torch.nn.parallel.DistributedDataParallel.broadcast_buffers")
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("names", [None, ["1.weight", "0.weight", "0.bias", "1.bias"]])
def test_buffers_are_sent_when_the_model_is_wrapped_and_not_again(monkeypatch, names):
    sent = []
    original = DistributedDataParallel._sync_module_buffers
    sync = torch.nn.parallel.distributed._sync_module_states
    monkeypatch.setattr(
        torch.nn.parallel.distributed,
        "_sync_module_states",
        lambda **arguments: sent.append(arguments["broadcast_buffers"]) or sync(**arguments),
    )
    monkeypatch.setattr(
        DistributedDataParallel,
        "_sync_module_buffers",
        lambda *arguments: sent.append("forward") or original(*arguments),
    )
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model = ddp_internals.with_ready_order(module, names)
    for _ in range(2):
        model(torch.ones(3, 2)).sum().backward()
    assert sent == [True]
    DistributedDataParallel(module)(torch.ones(3, 2))
    assert "forward" in sent  # what is counted above is counted


@pytest.mark.usefixtures("alone")
def test_an_order_of_other_parameters_is_not_used():
    model = ddp_internals.with_ready_order(Branches(), ["first.weight"])
    assert ddp_internals.ready_order(model) is None


@pytest.mark.usefixtures("alone")
def test_without_the_private_names_ddp_has_its_own_order(monkeypatch):
    monkeypatch.delattr(DistributedDataParallel, "_get_ddp_logging_data")
    assert not ddp_internals.is_supported()
    model = ddp_internals.with_ready_order(Branches(), ["first.weight", "second.weight"])
    assert type(model) is DistributedDataParallel
    model(torch.ones(1, 300)).backward()
    assert ddp_internals.ready_order(model) is None


@pytest.mark.relies_on("torch.nn.parallel.DistributedDataParallel._check_reducer_finalized")
@pytest.mark.usefixtures("alone")
def test_parameters_without_a_gradient_are_named(monkeypatch):
    model = ddp_internals.with_ready_order(Branches(), ["second.weight", "first.weight"])
    model(torch.ones(1, 300)).backward()
    assert ddp_internals.parameters_without_gradient(model) == []
    model(torch.ones(1, 300), is_short=True).backward()
    assert ddp_internals.parameters_without_gradient(model) == ["first.weight"]
    monkeypatch.delattr(DistributedDataParallel, "_check_reducer_finalized")
    assert ddp_internals.parameters_without_gradient(model) == []


@pytest.mark.relies_on("torch.nn.parallel.DistributedDataParallel._remove_autograd_hooks")
@pytest.mark.usefixtures("alone")
def test_a_detached_wrapper_no_longer_sees_gradients(monkeypatch):
    module = Branches()
    wrapped = DistributedDataParallel(module)
    ddp_internals.detach(wrapped)
    wrapped(torch.ones(1, 300)).backward()
    wrapped.reducer._rebuild_buckets()
    assert not ddp_internals.bucket_layout(wrapped) or len(ddp_internals.bucket_layout(wrapped)) == 1
    monkeypatch.delattr(DistributedDataParallel, "_remove_autograd_hooks")
    ddp_internals.detach(wrapped)


@pytest.mark.relies_on("torch.autograd.Variable._execution_engine.queue_callback")
def test_a_function_is_called_once_the_gradients_are_computed():
    from distrib.compat.pytorch.backward import call_after_gradients

    calls = []
    x = torch.ones(2, requires_grad=True)
    loss = (x * 3).sum()
    loss.register_hook(lambda _: call_after_gradients(lambda: calls.append(x.grad.tolist())))
    loss.backward()
    assert calls == [[3.0, 3.0]]
