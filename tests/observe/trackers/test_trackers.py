"""Trackers fed by their own processes, read back by each tracker's own reader."""

import glob
import json
import math
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job
from distrib.job.spec.targets import TrackerTarget
from distrib.observe.trackers import observer as observers
from distrib.observe.trackers.observer import TrackerObserver
from distrib.observe.trackers.registry import check_trackers
from distrib.observe.trackers.tracker import metrics_of
from distrib.runs.events import EventWriter
from distrib.runs.record import update_record

pytestmark = pytest.mark.timeout(120)

JOB = """
name: digits
model: {target: a.b:Model, args: {hidden: 256}}
data: {train: a.b:Data, batch_size: 64}
loss: a.b:Loss
optimizer: {target: torch.optim:AdamW, args: {lr: 0.1}}
train: {epochs: 2}
"""


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Nothing is written outside the test's folder, and nothing is sent anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))


@pytest.fixture
def tracked(run):
    run.layout.job_file.write_text(JOB)
    return run


@pytest.fixture
def notices():
    return []


@pytest.fixture
def launch(tracked, plan, notices, monkeypatch):
    """Trains the run for some steps as one launch would, with a tracker, whose start may take long."""
    monkeypatch.setattr(observers, "_PATIENCE_SECONDS", 50.0)
    running = []

    def launch(tracker, attempt, first, last, status):
        observer = TrackerObserver(TrackerTarget(**tracker), notices.append)
        running.append(observer)
        observer.started(tracked, plan)
        with EventWriter(tracked.layout.metrics_file, attempt) as events:
            events.write("start", step=first, epoch=0, samples=first * 8)
            for step in range(first + 1, last + 1):
                position = {"step": step, "epoch": 0, "samples": step * 8}
                events.write("train", **position, loss=1 / step, lr={"generator": 0.1, "critic": 0.2}, step_seconds=0.1)
                observer.idle()
                if step % 4 == 0:
                    events.write("eval", **position, loss=2 / step, accuracy=step / 100)
        if status is not None:
            update_record(tracked.folder, status=status)
            observer.finished(tracked)
        return observer

    yield launch
    for observer in running:
        observer._process.kill()
        observer._process.wait()
        observer._process.stdin.close()
        observer._process.stdout.close()


def expected_rows(run):
    """(step, name, value) of every value in metrics.jsonl, in order."""
    events = [event for event in run.events() if event["event"] in ("train", "eval")]
    return [(event["step"], name, value) for event in events for name, value in metrics_of(event).items()]


def same(found, expected, relative=0.0):
    found, expected = sorted(found), sorted(expected)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert all(math.isclose(a[2], b[2], rel_tol=relative) for a, b in zip(found, expected, strict=True))


def read_tensorboard(run, folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.directory_watcher")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for file in sorted(glob.glob(str(run.folder / "tensorboard" / "events.*"))):
        for event in EventFileLoader(file).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found.append((event.step, value.tag, value.tensor.float_val[0]))
    assert reader is not None
    return found


def read_mlflow(run, folder):
    from mlflow import MlflowClient

    client = MlflowClient((folder / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("digits")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.id
    assert found.info.status == "FINISHED"
    assert found.data.params["model.args.hidden"] == "256"
    names = {name for _, name, _ in expected_rows(run)}
    return [
        (metric.step, name, metric.value)
        for name in names
        for metric in client.get_metric_history(found.info.run_id, name)
    ]


def read_trackio(run, folder):
    connection = sqlite3.connect(folder / "trackio" / "digits.db")
    rows = connection.execute("select run_name, step, metrics, run_id from metrics").fetchall()
    connection.close()
    assert {row[0] for row in rows} == {run.id}
    assert len({row[3] for row in rows}) == 1
    return [(row[1], name, value) for row in rows for name, value in json.loads(row[2]).items() if name != "time"]


def log_records(data, block_bytes=32768):
    """The records of a file in LevelDB's log format, which W&B's offline files have after a head of 7 bytes."""
    position, parts = 7, []
    while position + 7 <= len(data):
        rest = block_bytes - position % block_bytes
        if rest < 7:
            position += rest
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield b"".join(parts)
            parts = []


def read_wandb(run, folder):
    from wandb.proto import wandb_internal_pb2

    found, ids = [], set()
    for file in sorted(glob.glob(str(run.folder / "wandb" / "offline-run-*" / "*.wandb"))):
        for data in log_records(Path(file).read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
                found += [(items["step"], name, value) for name, value in items.items() if "/" in name]
    assert len(ids) == 1
    return found


@pytest.mark.parametrize(
    "name",
    [
        "tensorboard",
        "trackio",
        pytest.param("mlflow", marks=pytest.mark.long),
        pytest.param("wandb", marks=pytest.mark.long),
    ],
)
def test_each_tracker_has_what_metrics_jsonl_has_across_a_kill_and_a_resume(launch, tracked, tmp_path, notices, name):
    pytest.importorskip(name, reason=f"{name} is not installed")
    args = {"uri": (tmp_path / "mlflow").as_uri()} if name == "mlflow" else {}
    killed = launch({"target": name, "args": args}, 0, 0, 6, None)
    killed._process.stdin.close()  # as the system does when the launcher is killed
    assert killed._process.wait(timeout=60) == 0
    launch({"target": name, "args": args}, 1, 4, 12, "finished")
    assert notices == []
    found = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb, "trackio": read_trackio}[name]
    expected = expected_rows(tracked)
    assert len({step for step, _, _ in expected}) == 12
    assert len(expected) > len({(step, row) for step, row, _ in expected})  # steps 5 and 6 are there twice
    same(found(tracked, tmp_path), expected, 1e-6 if name == "tensorboard" else 0.0)
    assert not (tmp_path / "home" / "wandb").exists()


def received(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def target(name, file=None):
    return {"target": f"tests.support.tracker_targets:{name}", "args": {} if file is None else {"file": str(file)}}


def test_a_tracker_of_the_user(launch, tracked, tmp_path, notices):
    file = tmp_path / "received"
    launch(target("Recorder", file), 0, 0, 5, "stopped")
    launch(target("Recorder", file), 1, 5, 8, "finished")
    starts = [value for kind, value in received(file) if kind == "start"]
    assert starts[0] == starts[1]
    assert starts[0][::2] == ["digits-1", "digits"]
    events = [[event["event"], event["step"], event["attempt"], event.get("loss")] for event in tracked.events()]
    assert [value for kind, value in received(file) if kind == "log"] == events
    assert [value for kind, value in received(file) if kind == "finish"] == ["stopped", "finished"]
    assert notices == []


def wait_for(condition, observer, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        observer.idle()
        time.sleep(0.05)


def test_a_tracker_that_raises_for_a_while_is_reported_once_and_gets_everything(launch, tracked, tmp_path, notices):
    file = tmp_path / "received"
    launch(target("Flaky", file), 0, 0, 8, "finished")
    assert [value[1] for kind, value in received(file) if kind == "log"] == [
        event["step"] for event in tracked.events()
    ]
    assert notices == [
        "tracker Flaky: ConnectionError: the server is away; it is tried again, training continues",
        "tracker Flaky works again",
    ]


@pytest.mark.parametrize("is_while_it_trains", [True, False])
def test_a_tracker_whose_process_dies_continues_in_another(
    launch, tracked, tmp_path, notices, monkeypatch, is_while_it_trains
):
    monkeypatch.setattr(observers, "_RESTART_SECONDS", 0.2)
    file = tmp_path / "received"
    observer = launch(target("Dying", file), 0, 0, 8, None)
    if is_while_it_trains:
        wait_for(lambda: file.exists() and file.read_text().count('["start", ["digits') == 2, observer)
    update_record(tracked.folder, status="finished")
    observer.finished(tracked)
    steps = [value[1] for kind, value in received(file) if kind == "log"]
    assert sorted(set(steps)) == list(range(9))
    assert notices == ["the process of tracker Dying has died; it is started again, training continues"]


@pytest.mark.parametrize("name", ["Broken", "Blocking"])
def test_a_tracker_that_never_works_only_delays_the_end_of_the_launcher(launch, tracked, notices, monkeypatch, name):
    monkeypatch.setattr(observers, "_PATIENCE_SECONDS", 0.5)
    threads = threading.active_count()
    started = time.monotonic()
    observer = launch(target(name), 0, 0, 300, None)
    calls = time.monotonic() - started
    assert calls < 20  # the process sleeps for 60 s
    assert threading.active_count() == threads
    if name == "Broken":
        wait_for(lambda: notices, observer)
        assert notices == ["tracker Broken: ValueError: never works; it is tried again, training continues"]
    update_record(tracked.folder, status="finished")
    started = time.monotonic()
    observer.finished(tracked)
    assert time.monotonic() - started < 30
    assert notices[-1] == f"tracker {name} has not received everything yet; it is fed for another minute"


def test_the_process_leaves_the_cores_to_the_ranks(launch, tracked, tmp_path):
    observer = launch(target("Blocking"), 0, 0, 3, None)
    wait_for(
        lambda: os.getpriority(os.PRIO_PROCESS, observer._process.pid) > os.getpriority(os.PRIO_PROCESS, 0), observer
    )
    assert os.getsid(observer._process.pid) != os.getsid(0)


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ("[{target: mlflow, args: {url: x}}]", "url"),
        ("[nothing:here]", "there is no module 'nothing'"),
        ("[tests.support.tracker_targets:Nobody]", "Nobody"),
    ],
)
def test_trackers_are_checked_before_the_start(tmp_path, trackers, message):
    path = tmp_path / "job.yaml"
    path.write_text(JOB + f"trackers: {trackers}\n")
    with pytest.raises(JobError, match=message) as caught:
        check_trackers(Job.load(path))
    assert caught.value.line is not None


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("distrib.observe.trackers.registry.find_spec", lambda name: None)
    path = tmp_path / "job.yaml"
    path.write_text(JOB + "trackers: [wandb]\n")
    with pytest.raises(JobError, match=r"pip install 'distrib\[wandb\]'"):
        check_trackers(Job.load(path))


@pytest.mark.parametrize(
    ("trackers", "message"),
    [("[nothing]", "tensorboard, mlflow, wandb, trackio, or module:attribute"), ("[wandb, wandb]", "listed twice")],
)
def test_trackers_that_do_not_exist(tmp_path, trackers, message):
    path = tmp_path / "job.yaml"
    path.write_text(JOB + f"trackers: {trackers}\n")
    with pytest.raises(JobError, match=message):
        Job.load(path)
