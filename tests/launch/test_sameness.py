"""What is computed does not depend on the launcher: the same weights to the bit, the same events, the same logs."""

import json
import re
import socket
from functools import cache

import pytest

from distrib.job.reader import Job
from distrib.runs.run import Run
from tests.support.launch_process import EVALUATION, JOB, Workplace

pytestmark = pytest.mark.timeout(120)

WORLD_SIZES = [1, 2, 3]
RATES = ("time", "samples_per_second")
TALKATIVE = (
    JOB.replace("launch_jobs:Mlp", "launch_jobs:Talkative")
    .replace("loss:", EVALUATION + "loss:")
    .replace("name: small", "name: ${JOB_NAME}")
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Launches under a launcher with so many ranks, once each; gives the launch and its workplace."""
    places = []

    @cache
    def launch(on, world_size):
        place = Workplace(tmp_path_factory.mktemp(f"{on}{world_size}"))
        places.append(place)
        place.write("job.yaml", TALKATIVE)
        launch = place.start("--on", on, "--workers", str(world_size), env={"JOB_NAME": "small"})
        assert launch.wait(100) == 0, launch.stdout + launch.stderr
        return launch, place

    yield launch
    for place in places:
        place.close()


def events_of(run, *kinds):
    """The events of these kinds, without times, durations and rates."""
    return [
        {name: value for name, value in event.items() if name not in RATES and not name.endswith("_seconds")}
        for event in run.events()
        if event["event"] in kinds
    ]


@pytest.mark.ray
def test_the_same_on_ray_as_locally(finished):
    (local, _), (ray, _) = finished("local", 3), finished("ray", 3)
    assert ray.run.weights.read_bytes() == local.run.weights.read_bytes()
    for kinds in [("start", "train", "eval"), ("checkpoint",)]:  # a checkpoint is told of when it is complete
        assert events_of(ray.run, *kinds) == events_of(local.run, *kinds)
    assert {event["event"] for event in ray.run.events()} == {event["event"] for event in local.run.events()}
    assert ray.run.metrics == local.run.metrics


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_a_run_has_all_its_events(finished, world_size):
    launch, _ = finished("local", world_size)
    events = events_of(launch.run, "start", "train", "eval")
    assert [(event["event"], event["step"]) for event in events] == [
        ("start", 0), ("train", 1), ("train", 2), ("eval", 3), ("train", 4), ("train", 6), ("eval", 6), ("train", 8),
        ("train", 9), ("eval", 9),
    ]  # fmt: skip
    assert events[0]["world_size"] == world_size
    assert {event["attempt"] for event in launch.run.events()} == {0}
    assert [event["samples"] for event in events if event["event"] == "eval"] == [22, 44, 66]
    assert [event["step"] for event in events_of(launch.run, "checkpoint")] == [3, 6, 9]


def test_world_sizes_differ_in_rounding_alone(finished):
    """Dropout and batch statistics depend on a rank's slice, so only the course of the samples is compared."""
    courses = [
        [
            (event["step"], event["epoch"], event["samples"])
            for event in events_of(finished("local", size)[0].run, "eval")
        ]
        for size in WORLD_SIZES
    ]
    assert courses[0] == courses[1] == courses[2]


@pytest.mark.parametrize("on", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_what_ranks_print_is_in_their_logs_once(finished, on):
    launch, _ = finished(on, 3)
    for rank in range(3):
        lines = launch.run.layout.rank_log(rank).read_text().splitlines()
        expected = [f"child of {rank}", f"print of {rank}", f"stderr of {rank}", f"unfinished line of {rank}"]
        assert sorted(lines) == expected
    shown = [line for line in launch.stdout.splitlines() if line.startswith("[rank")]
    texts = ["child of 0", "print of 0", "stderr of 0", "unfinished line of 0"]
    assert sorted(shown) == [f"[rank 0 on {socket.gethostname()}] {text}" for text in texts]
    assert launch.stdout.count("print of") == 1
    assert launch.stderr == ""


@pytest.mark.parametrize("on", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_the_record(finished, on):
    launch, place = finished(on, 3)
    run = launch.run
    record = json.loads(run.layout.record_file.read_text())
    assert (record["status"], record["error"], record["id"], record["name"]) == ("finished", None, run.id, "small")
    assert re.fullmatch(r"small-\d{8}-\d{6}-[0-9a-f]{4}", run.id)
    assert record["request"]["launcher"] == on
    assert (record["request"]["min_workers"], record["request"]["max_workers"]) == (3, 3)
    assert (record["request"]["device"], record["request"]["backend"]) == ("cpu", "gloo")
    schedule = record["schedule"]
    assert (schedule["world_size"], schedule["total_steps"], schedule["steps_per_epoch"]) == (3, 9, 3)
    assert schedule["rank_batches"] == [2, 3, 3]
    assert launch.started - 1 < record["started"] < record["ended"] <= launch.ended
    assert 0 < record["first_step_seconds"] < launch.ended - launch.started + 1  # the start is known to a clock tick
    assert record["input_signature"]
    assert record["result"]["eval"]["accuracy"] == run.metrics["accuracy"]
    provenance = record["provenance"]
    assert provenance["command"][1:] == ["run", "job.yaml", "--runs-dir", str(place.runs), "--on", on, "--workers", "3"]
    assert all(provenance[name] for name in ("python", "torch", "ray", "host", "platform"))


@pytest.mark.parametrize("on", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_the_job_is_kept_as_it_was_used(finished, on, monkeypatch):
    launch, place = finished(on, 3)
    assert "name: ${JOB_NAME}\n" in launch.run.layout.job_file.read_text()
    monkeypatch.setenv("JOB_NAME", "small")
    overrides = ["resources.workers=3", f"storage={place.runs}"]
    assert Job.load(launch.run.layout.job_file).spec == Job.load(place.job, overrides).spec


@pytest.mark.parametrize("on", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_run_folder_does_not_know_its_place(finished, on):
    run = finished(on, 3)[0].run
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    names = {path.relative_to(run.folder).as_posix() for path in files}
    checkpoints = {name for name in names if name.startswith("checkpoints/step-0000000")}
    logs = {f"logs/rank-{rank}.{kind}" for rank in range(3) for kind in ("log", "times")}
    assert sum(name.endswith("/COMMITTED") for name in checkpoints) == 2
    assert names - checkpoints == {"job.yaml", "run.json", "metrics.jsonl", "model.safetensors", *logs}
    assert [path for path in files if str(run.folder).encode() in path.read_bytes()] == []
    moved = run.folder.rename(run.folder.with_name("moved"))
    try:
        assert Run(moved).status == "finished"
    finally:
        moved.rename(run.folder)


@pytest.mark.parametrize("on", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_nothing_else_is_left(finished, on):
    launch, place = finished(on, 3)
    launch.wait_until_gone()
    place.assert_clean()
