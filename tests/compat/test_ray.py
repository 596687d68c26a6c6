"""What distrib relies on in Ray beyond its public API is there, and what happens without it."""

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from distrib.compat.ray import cluster, gcs, kv, packaging, raylet_log, start, train
from distrib.errors import ClusterLostError, LaunchError

PACKAGING = "ray._private.runtime_env.packaging"
COORDINATOR = "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator"


def takes(function, *names):
    """Whether a function has parameters of these names."""
    return set(names) <= set(inspect.signature(function).parameters)


@pytest.mark.relies_on(
    "ray.experimental.internal_kv._internal_kv_put",
    "ray.experimental.internal_kv._internal_kv_get",
    "ray.experimental.internal_kv._internal_kv_list",
    "ray.experimental.internal_kv._internal_kv_del",
)
def test_the_key_value_store(monkeypatch):
    from ray.experimental import internal_kv

    assert takes(internal_kv._internal_kv_put, "key", "value", "overwrite", "namespace")
    assert takes(internal_kv._internal_kv_get, "key", "namespace")
    assert takes(internal_kv._internal_kv_list, "prefix", "namespace")
    assert takes(internal_kv._internal_kv_del, "key", "del_by_prefix", "namespace")
    for name, call in {
        "put": lambda: kv.put("a", "1"),
        "get": lambda: kv.get("a"),
        "list": lambda: kv.count("a"),
        "del": lambda: kv.remove_all("a"),
    }.items():
        monkeypatch.delattr(internal_kv, f"_internal_kv_{name}")
        with pytest.raises(LaunchError, match="has no internal key-value store"):
            call()


class SilentHead:
    """Ray's client of a head that does not answer."""

    def __getattr__(self, name):
        def time_out(*arguments):
            assert arguments[-2:] == (b"distrib", 0.1)
            raise ray.exceptions.RpcError("Timed out while waiting for GCS to become available.")

        return time_out


@pytest.mark.relies_on("ray.experimental.internal_kv.internal_kv_get_gcs_client")
def test_a_head_that_does_not_answer_is_an_error(monkeypatch):
    from ray._raylet import InnerGcsClient
    from ray.experimental import internal_kv

    assert list(inspect.signature(InnerGcsClient.internal_kv_get).parameters)[1:] == ["key", "namespace", "timeout"]
    for name, flag in {"put": "overwrite", "del": "del_by_prefix"}.items():
        assert takes(getattr(InnerGcsClient, f"internal_kv_{name}"), flag, "namespace", "timeout")
    assert takes(InnerGcsClient.internal_kv_keys, "prefix", "namespace", "timeout")
    monkeypatch.setattr(internal_kv, "internal_kv_get_gcs_client", SilentHead)
    calls = (lambda: kv.put("a", "1", 0.1), lambda: kv.get("a", 0.1), lambda: kv.count("a", 0.1))
    for call in (*calls, lambda: kv.remove_all("a", 0.1)):
        with pytest.raises(ClusterLostError, match="head has not answered for 0 s"):
            call()


def test_without_a_client_that_has_time_limits_the_plain_functions_are_called(monkeypatch):
    from ray.experimental import internal_kv

    calls = []
    for name in ("put", "get", "list", "del"):
        monkeypatch.setattr(
            internal_kv, f"_internal_kv_{name}", lambda *args, _name=name, **kw: calls.append((_name, args, kw)) or []
        )
    monkeypatch.delattr(internal_kv, "internal_kv_get_gcs_client")
    kv.put("a", "1"), kv.get("a"), kv.count("a"), kv.remove_all("a")
    assert calls == [
        ("put", (b"a", b"1"), {"overwrite": True, "namespace": b"distrib"}),
        ("get", (b"a",), {"namespace": b"distrib"}),
        ("list", (b"a",), {"namespace": b"distrib"}),
        ("del", (b"a",), {"del_by_prefix": True, "namespace": b"distrib"}),
    ]


@pytest.mark.relies_on("ray.autoscaler.v2.utils.is_autoscaler_v2")
def test_the_autoscaler_is_asked_for(monkeypatch):
    from ray.autoscaler.v2 import utils

    assert takes(utils.is_autoscaler_v2, "fetch_from_server")
    monkeypatch.setattr(utils, "is_autoscaler_v2", lambda fetch_from_server: True)
    monkeypatch.setattr(cluster, "_state_query", lambda name: None)
    assert cluster.has_autoscaler()
    monkeypatch.delattr(utils, "is_autoscaler_v2")
    assert not cluster.has_autoscaler()


@pytest.mark.relies_on("ray._raylet.GcsClient")
def test_a_value_is_taken_without_a_connection(monkeypatch):
    from ray import _raylet

    assert isinstance(_raylet.GcsClient, type)  # what it does is tested in the lab, with the secrets of a job
    monkeypatch.delattr(_raylet, "GcsClient")
    with pytest.raises(LaunchError, match="cannot hand over the secrets"):
        gcs.take("127.0.0.1:1", "key")
    assert not gcs.refuses_token("127.0.0.1:1")


@pytest.mark.relies_on(
    "ray._private.state.available_resources_per_node",
    "ray._private.state.state.get_draining_nodes",
    "ray._private.state.state.get_max_resources_from_cluster_config",
)
def test_the_state_of_the_cluster(monkeypatch):
    from ray._private import state

    assert callable(state.available_resources_per_node)
    assert callable(state.state.get_draining_nodes)
    assert callable(state.state.get_max_resources_from_cluster_config)
    monkeypatch.delattr(state, "available_resources_per_node")
    monkeypatch.delattr(state, "state")
    assert cluster.free_resources() is None
    assert cluster.draining_nodes() == frozenset()
    assert not cluster.has_autoscaler()


@pytest.mark.relies_on(
    "ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE",
    "ray._private.runtime_env.packaging._dir_travel, _get_excludes",
)
def test_the_files_that_are_shipped(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.bin").write_text("22")
    assert packaging.shipped_sizes(str(tmp_path), ["*.bin"]) == {"a.py": 1}
    assert packaging.max_package_bytes() > 2**20
    monkeypatch.setitem(sys.modules, PACKAGING, None)
    assert packaging.shipped_sizes(str(tmp_path), ["*.bin"]) == {}
    assert packaging.max_package_bytes() is None


@pytest.mark.relies_on("ray.init(_temp_dir, _node_ip_address)")
def test_the_options_of_a_local_cluster():
    import ray

    assert takes(ray.init, "_temp_dir", "_node_ip_address") or "_temp_dir" in inspect.getsource(ray.init)
    assert set(start.local_cluster_options("/tmp/x", "127.0.0.1")) == {"_temp_dir", "_node_ip_address"}


@pytest.mark.relies_on("raylet: RAY_prestart_worker_first_driver")
def test_the_raylet_knows_the_setting_of_first_workers():
    (name,) = start.LOCAL_SETTINGS
    assert name.encode() in Path(ray.__path__[0], "core/src/ray/raylet/raylet").read_bytes()


@pytest.mark.relies_on("ray._private.worker.print_to_stdstream")
def test_the_end_of_workers_prints_nothing(monkeypatch, capsys):
    from ray._private import worker

    line = {"pid": 1, "is_err": False, "lines": ["died"], "ip": "x", "actor_name": None, "task_name": None}
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    assert takes(worker.print_to_stdstream, "data", "ignore_prefix")
    start.silence_worker_deaths()
    worker.print_to_stdstream(line, ignore_prefix=False)
    assert capsys.readouterr().out == ""
    monkeypatch.delattr(worker, "print_to_stdstream")
    start.silence_worker_deaths()
    assert not hasattr(worker, "print_to_stdstream")


@pytest.mark.relies_on(
    "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator.get_or_create_autoscaling_coordinator"
)
def test_the_coordinator_is_started_where_there_is_one(monkeypatch):
    coordinator = __import__(COORDINATOR, fromlist=["x"])
    started = []
    monkeypatch.setattr(coordinator, "get_or_create_autoscaling_coordinator", lambda: started.append(True))
    start.start_autoscaling_coordinator()
    assert started == [True]
    monkeypatch.setitem(sys.modules, COORDINATOR, None)
    start.start_autoscaling_coordinator()
    assert started == [True]


@pytest.mark.relies_on("ray._private.worker._global_node.get_logs_dir_path")
def test_the_folder_of_this_host_s_logs(tmp_path, monkeypatch):
    from ray._private import node, worker

    assert callable(node.Node.get_logs_dir_path)
    assert hasattr(worker, "_global_node")
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(get_logs_dir_path=lambda: str(tmp_path)))
    (tmp_path / "raylet.out").write_text("12")
    assert raylet_log.RayletLog.from_the_beginning() == raylet_log.RayletLog(tmp_path)
    assert raylet_log.RayletLog.from_now() == raylet_log.RayletLog(tmp_path, 2, 0)
    monkeypatch.delattr(worker, "_global_node")
    assert raylet_log.RayletLog.from_now() == raylet_log.RayletLog(None)
    assert raylet_log.RayletLog(None).started_workers() == raylet_log.RayletLog(None).error_lines() == []


@pytest.mark.relies_on("raylet: text of a started worker process")
def test_the_raylet_logs_which_workers_it_starts(tmp_path):
    import ray

    assert b"Started worker process with pid " in Path(ray.__path__[0], "core/src/ray/raylet/raylet").read_bytes()
    (tmp_path / "raylet.out").write_text("x: Started worker process with pid 26022 worker_id=9fe\n")
    (tmp_path / "python-core-worker-9fe_26022.log").touch()
    log = raylet_log.RayletLog(tmp_path)
    assert (log.started_workers(), log.has_registered(26022), log.has_registered(7)) == ([26022], True, False)


@pytest.mark.relies_on("ray.train.torch.TorchTrainer._create_default_callbacks")
def test_a_trainer_starts_no_actor_that_outlives_it():
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    names = [type(each).__name__ for each in trainer._create_default_callbacks()]
    train.leave_out_cleaner(trainer)
    kept = [type(each).__name__ for each in trainer._create_default_callbacks()]
    assert kept == [name for name in names if name != "PlacementGroupCleanerCallback"]
    assert len(kept) == len(names) - 1
    train.leave_out_cleaner(SimpleNamespace())
