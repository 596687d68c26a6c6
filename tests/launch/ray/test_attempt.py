"""One attempt on Ray, with Ray Train replaced by entries in a dictionary: which end leads to which result."""

import json
import re
import time
from types import SimpleNamespace

import pytest

from distrib.compat.ray import kv
from distrib.job.plan import Request
from distrib.launch.launcher import Attempt, Placement
from distrib.launch.ray import attempt as attempt_module
from distrib.launch.ray import ranks as ranks_module
from distrib.launch.ray.attempt import RayAttempt
from distrib.launch.ray.control_store import RayControlStore
from distrib.launch.ray.rank_process import RankProcess
from distrib.launch.ray.worker import RankFailedError
from distrib.train.failure import Failure
from distrib.train.phases import Phase

pytestmark = pytest.mark.timeout(120)

REPORTED = f"{RankFailedError.__name__}: the launcher knows why"


@pytest.fixture
def control(monkeypatch):
    """A control store in a dictionary."""
    entries = {}
    monkeypatch.setattr(kv, "put", lambda key, value, timeout: entries.update({key: value}))
    monkeypatch.setattr(kv, "get", lambda key, timeout: entries.get(key))
    monkeypatch.setattr(kv, "count", lambda prefix, timeout: sum(key.startswith(prefix) for key in entries))
    return RayControlStore("key")


class Monitor:
    def __init__(self):
        self.notices, self.stops, self.on_poll = [], 0, lambda: None

    def poll(self):
        self.on_poll()

    def stop_requested(self):
        return self.stops > 0

    def kill_requested(self):
        return self.stops > 1

    def last(self, kind):
        return {"attempt": 0}

    def notice(self, message):
        self.notices.append(message)

    follow_store = drain = skip_output = lambda self, *_: None


class Nodes:
    """Hosts of which the test says what happens to them."""

    hosts = ()

    def __init__(self):
        self.lost_host = self.leaving_host = None

    def check(self):
        pass

    def lost(self, nodes):
        return self.lost_host

    def leaving(self, nodes):
        return self.leaving_host

    def better(self, placement, held):
        return None


class Trainer:
    """A trainer that is over, or has failed, when the test says so."""

    placement = Placement(2, ("a", "b"))

    def __init__(self):
        self.is_over, self.error, self.ended, self.found = False, None, False, None

    def causes(self):
        return self.found

    @property
    def has_failed(self):
        return self.found is not None

    def end(self):
        self.ended = True


@pytest.fixture
def parts(control, tmp_path, monkeypatch):
    monkeypatch.setattr(attempt_module, "_NODE_POLL_SECONDS", 0.0)
    monkeypatch.setattr(attempt_module, "_TRAINER_POLL_SECONDS", 0.0)
    monkeypatch.setattr(attempt_module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(attempt_module, "_SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(attempt_module, "_BREAK_OFF_SECONDS", 0.1)
    killed = []
    monkeypatch.setattr(ranks_module, "kill_everywhere", killed.extend)
    monitor, nodes, trainer = Monitor(), Nodes(), Trainer()
    trainers = SimpleNamespace(
        ask_for_hosts=lambda num_workers: None,
        describe_error_logs=lambda: "on host1: no module",
        control=control,
        held={"a": 1, "b": 1},
        request=Request("ray", 1, 2, "cpu", "gloo", 2, 300.0, 30.0),
        is_next_ready=False,
        begin=lambda config, placement: trainer,
        node_monitor=lambda: nodes,
        watch_start=lambda trainer, notice: SimpleNamespace(poll=lambda: None),
        nodes_of=lambda attempt, world_size: {},
    )
    request = SimpleNamespace(grace_seconds=0.3, hang_timeout_seconds=300.0)
    config = SimpleNamespace(attempt=0, run_folder=tmp_path, request=request, is_script=False)
    attempt = Attempt(config, Placement(2, ("a", "b")), monitor)
    return SimpleNamespace(
        run=RayAttempt(attempt, trainers).run,
        make=lambda: RayAttempt(attempt, trainers),
        config=config,
        monitor=monitor,
        nodes=nodes,
        trainer=trainer,
        control=control,
        killed=killed,
    )


def begun(parts, rank):
    """Has a rank begun on a host."""
    process = {"host": "there", "node_id": "ab"[rank], "pid": 100 + rank, "started": 5.0}
    parts.control.write(f"rank/0/{rank}", {"name": f"host{rank}", **process})
    return RankProcess(**process)


def failure(rank, kind, message="wrong"):
    return Failure(rank, f"host{rank}", "Error", message, None, kind, time.time())


@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_ranks_that_come_to_their_end(parts, status):
    parts.control.write("result/0", status)
    parts.trainer.is_over = True
    assert parts.run().status == status


def test_an_error_that_a_rank_has_reported(parts):
    parts.control.report_failure(0, 1, failure(1, "user"))
    parts.trainer.found = {0: REPORTED, 1: REPORTED}
    result = parts.run()
    assert (result.status, result.failure.rank, result.failure.kind) == ("failed", 1, "user")


def test_a_lost_process_outranks_the_errors_of_those_that_waited_for_it(parts):
    parts.control.write("rank/0/1", {"name": "host1 (10.0.0.2)", "node_id": "b"})
    for rank in range(2):
        parts.control.write(f"position/0/{rank}", [7, int(Phase.FORWARD), 123, 1.0, 0.5])
    parts.control.report_failure(0, 0, failure(0, "infrastructure", "connection closed"))
    parts.trainer.found = {0: REPORTED, 1: "RayActorError: Worker exit detail: killed"}
    found = parts.run().failure
    assert (found.rank, found.host, found.type, found.kind) == (1, "host1 (10.0.0.2)", "RankLost", "infrastructure")
    assert (found.completed_steps, found.phase) == (7, "forward")


def test_ray_itself_fails(parts):
    parts.trainer.is_over, parts.trainer.error = True, RuntimeError("no controller")
    found = parts.run().failure
    assert (found.rank, found.type, found.message) == (
        None,
        "RayError",
        "no rank has begun: no controller\non host1: no module",
    )


def test_a_lost_host_ends_the_attempt_without_waiting_for_ray(parts):
    parts.nodes.lost_host = "host2 (10.0.0.3)"
    result = parts.run()
    assert (result.status, result.failure.type, result.failure.host) == ("failed", "HostLost", "host2 (10.0.0.3)")
    assert parts.trainer.ended
    assert "end" in parts.control.commands_for(0)


def test_a_host_that_goes_after_all_ranks_have_finished_is_no_loss(parts):
    parts.nodes.lost_host = "host2"
    parts.control.write("result/0", "finished")
    assert parts.run().status == "finished"


def test_a_stop_is_sent_to_the_ranks_and_ends_them_after_the_grace(parts):
    parts.monitor.stops = 1
    process = begun(parts, 0)
    started = time.monotonic()
    assert parts.run().status == "stopped"
    assert time.monotonic() - started >= 0.3
    assert parts.killed == [process]
    assert "end" in parts.control.commands_for(0)


def test_ranks_that_do_not_end_when_told_to_are_killed(parts):
    parts.monitor.stops = 2
    expected = [begun(parts, rank) for rank in range(2)]
    assert parts.run().status == "stopped"
    assert parts.killed == expected


def test_a_stop_before_any_rank_has_begun_does_not_wait_for_the_grace(parts, monkeypatch):
    monkeypatch.setattr(attempt_module, "_END_SECONDS", 0.1)
    parts.config.request.grace_seconds = 1000.0
    parts.monitor.stops = 1
    assert parts.run().status == "stopped"


def test_an_error_of_a_script_that_stops_is_shown(parts):
    parts.monitor.stops = 1
    parts.control.report_failure(0, 0, failure(0, "infrastructure", "connection closed"))
    parts.control.report_failure(0, 1, failure(1, "user", "the weights were not saved"))
    parts.control.write("result/0", "stopped")
    parts.trainer.is_over = True
    assert parts.run().status == "stopped"
    (notice,) = parts.monitor.notices
    assert notice == "an error while stopping: rank 1 on host1 failed: Error: the weights were not saved"


def test_a_second_signal_ends_the_ranks_at_once(parts):
    parts.monitor.stops = 2
    assert parts.run().status == "stopped"
    assert parts.monitor.notices == ["stopping immediately"]


def test_a_drained_host_leads_to_a_resize(parts):
    parts.nodes.leaving_host = "host1"

    def poll():
        if "stop" in parts.control.commands_for(0):
            parts.control.write("result/0", "stopped")
            parts.trainer.is_over = True

    parts.monitor.on_poll = poll
    result = parts.run()
    assert (result.status, result.reason) == ("resized", "host1 is being drained")


def test_ranks_that_do_not_advance(parts, monkeypatch):
    for name in ("_MARGIN_SECONDS", "_POLL_SECONDS"):
        monkeypatch.setattr(f"distrib.launch.watch.hangs.{name}", 0.0)
    monkeypatch.setattr("distrib.launch.ray.positions.publish_seconds", lambda world_size: 0.0)
    parts.config.request.hang_timeout_seconds = 0.2
    for rank, phase in ((0, 4), (1, 1)):  # reduce, data
        expected = begun(parts, rank)
        parts.control.write(f"position/0/{rank}", [7, phase, 123, 1.0, 0.5])
        parts.control.write(f"stacks/0/{rank}", ["train.py:3 in read", False])
    monkeypatch.setattr(attempt_module, "_END_SECONDS", 0.1)
    found = parts.make().run().failure
    assert (found.rank, found.host, found.type, found.kind) == (1, "host1", "RankHangs", "hang")
    assert (found.completed_steps, found.phase) == (7, "data")
    assert [process.pid for process in parts.killed] == [100, expected.pid]  # they did not end in time
    text = r"rank 1 on host1 has been in data for \d+ s; the other waits in reduce; at train.py:3 in read"
    assert re.search(text, found.message), found.message
    assert "end" in parts.control.commands_for(0)


def test_entries_are_json_and_count_by_prefix(control):
    control.write("ready/0/a", value=True)
    control.write("ready/0/b", value=True)
    control.write("ready/1/a", value=True)
    assert control.count("ready/0/") == 2
    assert control.read("missing") is None
    assert json.loads(kv.get("key/ready/0/a", 1.0)) is True
