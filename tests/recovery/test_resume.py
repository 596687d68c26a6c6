"""The same run id again: what is resumed, what is refused, and what is left unchanged."""

import signal
import time

import pytest

from tests.support.recovery_runs import Place, assert_each_sample_once_per_epoch, assert_same, job

pytestmark = pytest.mark.timeout(120)

STEPS = 52
SPEC = job(train={"steps": STEPS}, schedule=None)


@pytest.fixture(scope="module")
def finished(command_server, tmp_path_factory):
    place = Place(command_server, tmp_path_factory.mktemp("resume") / "finished", SPEC)
    place.finish()
    yield place
    place.close()


@pytest.fixture(scope="module")
def stopped(command_server, tmp_path_factory):
    place = Place(command_server, tmp_path_factory.mktemp("resume") / "stopped", SPEC)
    place.stop_at(7)
    yield place
    place.close()


def train(**changes):
    return job(train={"steps": STEPS, **changes}, schedule=None)


def test_a_finished_run_says_so_and_is_left_alone(make_place, finished):
    place = make_place("again", like=finished)
    before = place.snapshot()
    assert "run has finished already" in place.finish().output
    assert "run has finished already" in place.finish("--extend").output
    assert place.snapshot() == before


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_another_job_is_refused(make_place, request, state):
    place = make_place("again", like=request.getfixturevalue(state))
    before = place.snapshot()
    model = {"target": "recovery_jobs:Fragile", "args": {"hidden": 9}}
    place.write({**train(seed=4), "model": model})
    launch = place.start()
    assert launch.wait(60) == 2
    assert "model.args: {} then, {'hidden': 9} now" in launch.output
    assert "train.seed: 0 then, 4 now" in launch.output
    assert "optimizer" not in launch.output
    assert place.snapshot() == before


def test_more_steps_without_extend_are_another_job(make_place, finished):
    place = make_place("again", like=finished)
    place.write(train(steps=60))
    launch = place.start()
    assert launch.wait(60) == 2
    assert "train.steps: 52 then, 60 now" in launch.output
    assert "--extend" in launch.output


def test_source_code_that_has_changed_is_said_once(make_place, stopped):
    place = make_place("again", like=stopped)
    (place.folder / "exact_jobs.py").write_text((place.folder / "exact_jobs.py").read_text() + "\n# changed\n")
    place.plan([{"moment": "updated", "rank": 0, "nth": 30, "victim": "launcher"}])
    launch = place.start()
    assert launch.wait(60) < 0
    assert "the source code of exact_jobs has changed since" in launch.output
    assert "has changed" not in place.finish().output


def test_fields_that_may_differ(make_place, finished, stopped):
    place = make_place("again", like=stopped)
    spec = train(log_every=9, eval_every="1 epoch")
    data = {**spec["data"], "loader_workers": 1, "eval_batch_size": 3}
    place.write({**spec, "data": data, "metrics": {}, "checkpoint": {"every": "never"}, "failures": {"grace": 5}})
    place.finish()
    assert place.layout.weights_file.read_bytes() == finished.layout.weights_file.read_bytes()
    assert_each_sample_once_per_epoch(place.layout, 2, STEPS)


def test_fresh_begins_beside(make_place, finished, stopped):
    place = make_place("again", like=stopped)
    before = place.snapshot()
    place.finish("--fresh")
    assert {path: entry for path, entry in place.snapshot().items() if path in before} == before
    beside = place.folder / "runs" / "run-2"
    assert (beside / "model.safetensors").read_bytes() == finished.layout.weights_file.read_bytes()
    place.finish("--fresh", "--set", "train.steps=3")
    assert (place.folder / "runs" / "run-3" / "model.safetensors").exists()


def test_extended(make_place):
    short, long = (job(train={"steps": None, "epochs": epochs}, schedule=None) for epochs in (3, 6))
    place, reference = make_place("again", short), make_place("long", long)
    begun = reference.start()
    place.finish()
    place.write(long)
    place.finish("--extend")
    assert begun.wait(60) == 0
    assert_same_but_evaluated_once_more(place, reference, 6 * 13)


def assert_same_but_evaluated_once_more(place, reference, num_steps):
    extra = {event["step"] for event in place.events("eval")} - {event["step"] for event in reference.events("eval")}
    assert extra == {3 * 13}
    lines = place.layout.metrics_file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ('"eval"' in line and f'"step": {3 * 13},' in line)]
    place.layout.metrics_file.write_text("".join(kept))
    assert_same(place, reference, 2, num_steps)


def test_extended_to_less_is_refused(make_place, stopped):
    place = make_place("again", like=stopped)
    before = place.snapshot()
    place.write(train(steps=5))
    launch = place.start("--extend")
    assert launch.wait(60) == 2
    assert "has a checkpoint of step" in launch.output
    assert place.snapshot() == before


def test_no_restarts(make_place, finished):
    place = make_place("killed", job(train={"steps": STEPS}, schedule=None, failures={"max_restarts": 0}))
    place.plan([{"moment": "forward", "rank": 1, "nth": 20, "victim": "self"}])
    launch = place.start()
    assert launch.wait(60) == 1
    assert (place.run.status, place.run.error["type"]) == ("failed", "SIGKILL")
    assert len(place.events("start")) == 1
    place.finish()
    assert_same(place, finished, 2, STEPS)


@pytest.mark.parametrize(("how", "num_attempts"), [("kill", 3), ("raise", 1)])
def test_a_rank_that_fails_every_time(make_place, tmp_path, how, num_attempts):
    notes = tmp_path / "notes"
    model = {"target": "recovery_jobs:Suicidal", "args": {"how": how, "notes": str(notes)}}
    place = make_place("failing", job(model=model, failures={"max_restarts": 2}))
    launch = place.start()
    assert launch.wait(60) == 1
    assert notes.read_text() == num_attempts * "built\n"
    assert place.run.status == "failed"
    assert place.run.error["type"] == {"kill": "SIGKILL", "raise": "ValueError"}[how]
    assert [event["attempt"] for event in place.events("restart")] == list(range(1, num_attempts))


def test_an_end_that_was_interrupted(make_place, finished):
    place = make_place("killed", SPEC)
    place.plan([{"moment": "final", "rank": 0, "nth": 1, "victim": "launcher"}])
    assert place.start().wait(60) < 0
    assert not place.layout.weights_file.exists()
    place.finish()
    assert_same(place, finished, 2, STEPS)
    expected = finished.run.record["result"]
    assert {kind: event["loss"] for kind, event in place.run.record["result"].items()} == {
        kind: event["loss"] for kind, event in expected.items()
    }


def test_a_disk_that_is_full(make_place, finished):
    place = make_place("full", SPEC)
    place.plan([{"moment": "write", "rank": 1, "nth": 2, "victim": "disk"}])
    place.finish()
    (warning,) = place.warnings()
    assert warning.startswith("the checkpoint of step 14 was not kept, the ones before it stand: cannot write ")
    assert "No space left on device; free some space there" in warning
    assert [event["step"] for event in place.events("checkpoint")][:2] == [7, 21]
    assert not list(place.layout.checkpoints.glob("step-00000014*"))
    assert_same(place, finished, 2, STEPS)


def test_a_stop_whose_save_takes_too_long(make_place, finished):
    """The checkpoint before stands."""
    place = make_place("stopped", job(train={"steps": STEPS}, schedule=None, failures={"grace": 1}))
    place.plan([{"moment": "write", "rank": 1, "nth": 3, "victim": "none"}])
    launch = place.start()
    launch.wait_until(lambda: not list(place.strikes.iterdir()))
    launch.send(signal.SIGTERM)
    sent = time.monotonic()
    assert launch.wait(60) == 130
    assert time.monotonic() - sent >= 1
    assert place.run.status == "stopped"
    assert place.committed() == [7, 14]
    place.finish()
    assert_same(place, finished, 2, STEPS)
