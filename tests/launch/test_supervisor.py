"""The supervisor decides between another attempt and the end; the launcher is replaced by a list of results."""

import time

import pytest

from distrib.errors import ClusterLostError, LaunchError, StoppedError, TrainingFailedError
from distrib.job.reader import Job
from distrib.launch.acquire import RunRequest, acquire_run
from distrib.launch.launcher import AttemptResult, Placement
from distrib.launch.monitor import RunMonitor
from distrib.launch.prepare import prepare
from distrib.launch.process.signals import StopSignals
from distrib.launch.supervisor import RunSupervisor
from distrib.observe.observer import SilentObserver
from distrib.runs.events import EventWriter
from distrib.train.context import AttemptConfig
from distrib.train.failure import Failure

pytestmark = pytest.mark.timeout(60)

JOB = """\
name: supervised
model: tests.support.launch_jobs:Mlp
data: {train: {target: tests.support.launch_jobs:Samples, args: {count: 22}}, batch_size: 8}
loss: torch.nn:CrossEntropyLoss
optimizer: torch.optim:SGD
train: {epochs: 1}
resources: {workers: {min: 1, max: 3}, device: cpu}
failures: {max_restarts: 2}
"""


def failed(kind, type_="RankLost"):
    return AttemptResult("failed", Failure(1, "host", type_, "it went wrong", None, kind, time.time()))


LOST = failed("infrastructure")
FINISHED = AttemptResult("finished")


class Notices(SilentObserver):
    """Keeps what the launcher reports."""

    def __init__(self):
        self.notices = []

    def notice(self, message):
        self.notices.append(message)


class ScriptedLauncher:
    """Ends each attempt with the next result; makes the placements that are listed."""

    def __init__(self, results, sizes):
        self.results, self.sizes = iter(results), iter(sizes)
        self.attempts = []
        self.on_run = lambda: None

    def run(self, attempt):
        self.attempts.append((attempt.config.attempt, attempt.world_size))
        self.on_run()
        result = next(self.results)
        if isinstance(result, BaseException):
            raise result
        return result

    def find_room(self, request, notice, is_stopping):
        size = next(self.sizes, 2)
        return None if size is None else Placement(size)


@pytest.fixture
def supervise(tmp_path):
    """Runs a supervisor over scripted results; gives the launcher and the run."""
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    job = Job.load(path, [f"storage={tmp_path / 'runs'}"])
    prepared = prepare(job, "local", lambda job: "cpu")
    signals = StopSignals()

    def call(*results, sizes=(), stop_during=None):
        steps = prepared.plan_for(2).schedule.total_steps
        acquired = acquire_run(RunRequest(job, "run", steps))
        config = AttemptConfig(
            job=job,
            request=prepared.request,
            run_location=str(acquired.run.location),
            working_directory=tmp_path,
            lease=acquired.lease.token,
        )
        launcher = ScriptedLauncher(results, sizes)
        if stop_during is not None:
            launcher.on_run = lambda: setattr(signals, "count", int(len(launcher.attempts) == stop_during))
        launcher.observer = Notices()
        monitor = RunMonitor(acquired.run, launcher.observer, time.time(), acquired.lease, signals)
        error = None
        try:
            RunSupervisor(prepared, acquired, config, launcher, monitor).run(Placement(2))
        except BaseException as raised:
            error = raised
        finally:
            acquired.lease.release()
        return launcher, acquired.run, error

    return call


def events(run, kind):
    return [(event["attempt"], event["message"]) for event in run.events() if event["event"] == kind]


def test_a_run_that_finishes_at_once(supervise):
    launcher, run, error = supervise(FINISHED)
    assert error is None
    assert launcher.attempts == [(0, 2)]
    assert (run.status, run.error) == ("finished", None)


def test_lost_ranks_are_restarted_as_often_as_allowed(supervise):
    launcher, run, error = supervise(LOST, LOST, FINISHED)
    assert error is None
    assert launcher.attempts == [(0, 2), (1, 2), (2, 2)]
    assert [attempt for attempt, _ in events(run, "restart")] == [1, 2]
    assert "it went wrong; restart 2, from step 0" in events(run, "restart")[1][1]


def test_one_loss_more_than_allowed_fails_the_run(supervise):
    launcher, run, error = supervise(LOST, LOST, LOST, FINISHED)
    assert len(launcher.attempts) == 3
    assert isinstance(error, TrainingFailedError)
    assert run.error["type"] == "RankLost"


def test_the_users_error_is_final(supervise):
    launcher, run, error = supervise(failed("user", "ValueError"), FINISHED)
    assert launcher.attempts == [(0, 2)]
    assert isinstance(error, TrainingFailedError)
    assert str(error) == "rank 1 on host failed: ValueError: it went wrong"
    assert (run.status, run.error["kind"]) == ("failed", "user")


def test_storage_that_a_host_does_not_see_is_final_and_an_error_of_the_launch(supervise):
    launcher, _, error = supervise(failed("infrastructure", "StorageNotSharedError"), FINISHED)
    assert launcher.attempts == [(0, 2)]
    assert isinstance(error, LaunchError)


def test_another_size_is_recorded_as_a_resize(supervise):
    launcher, run, _ = supervise(LOST, AttemptResult("resized", reason="there is room"), FINISHED, sizes=[1, 3])
    assert launcher.attempts == [(0, 2), (1, 1), (2, 3)]
    assert events(run, "resize") == [
        (1, "1 workers instead of 2, from step 0"),
        (2, "there is room: 3 workers instead of 1, from step 0"),
    ]
    assert run.record["schedule"]["world_size"] == 3
    assert len(events(run, "restart")) == 1  # a resize is no failure


def test_a_stop_while_an_attempt_fails_prevents_the_next(supervise):
    launcher, run, error = supervise(LOST, FINISHED, stop_during=1)
    assert launcher.attempts == [(0, 2)]
    assert isinstance(error, StoppedError)
    assert run.status == "stopped"


def test_a_stop_while_waiting_for_room(supervise):
    launcher, run, error = supervise(LOST, FINISHED, sizes=[None])
    assert launcher.attempts == [(0, 2)]
    assert isinstance(error, StoppedError)
    assert run.status == "stopped"


def test_an_error_of_the_launcher_itself_is_recorded(supervise):
    _, run, error = supervise(LaunchError("the head is gone"))
    assert isinstance(error, LaunchError)
    assert run.status == "failed"
    assert (run.error["type"], run.error["message"]) == ("LaunchError", "the head is gone")


def test_a_run_that_continues_counts_attempts_on(supervise):
    supervise(LOST, FINISHED, sizes=[None])
    launcher, run, error = supervise(FINISHED)
    assert error is None
    assert launcher.attempts == [(2, 2)]
    assert run.status == "finished"


def test_a_failure_while_a_stop_is_requested_is_shown(supervise):
    launcher, run, error = supervise(LOST, stop_during=1)
    assert isinstance(error, StoppedError)
    assert (run.status, launcher.attempts) == ("stopped", [(0, 2)])
    assert launcher.observer.notices[-1] == (
        "not restarted, as a stop was requested: rank 1 on host failed: RankLost: it went wrong"
    )


def test_a_lost_cluster_is_reported_with_the_command_that_continues(supervise):
    _, run, error = supervise(ClusterLostError("the head has not answered for 40 s"))
    assert isinstance(error, ClusterLostError)
    assert str(error).startswith("the head has not answered for 40 s; once it is back, continue with: distrib run ")
    assert str(error).endswith(" --run-id run")
    assert run.status == "failed"


@pytest.mark.parametrize(
    ("is_script", "has_session", "how"),
    [
        (False, False, "stopping at the next agreed step"),
        (True, False, "stopping: SIGTERM is sent to the script's ranks"),
        (True, True, "stopping at the next agreed step"),
    ],
)
def test_a_stop_is_announced_as_it_is_carried_out(tmp_path, is_script, has_session, how):
    (tmp_path / "job.yaml").write_text(JOB)
    job = Job.load(tmp_path / "job.yaml", [f"storage={tmp_path / 'runs'}"])
    acquired = acquire_run(RunRequest(job, "run", 1))
    acquired.run.create_record(name="job", request={}, schedule=None, provenance={})
    observer, signals = Notices(), StopSignals()
    observer.waiting = observer.notice
    monitor = RunMonitor(acquired.run, observer, time.time(), acquired.lease, signals, is_script=is_script)
    if has_session:
        with EventWriter(acquired.run.layout.metrics_file, 0) as writer:
            writer.write("start", step=0, epoch=0, samples=0)
        monitor.poll()
    signals.count = 1
    assert monitor.stop_requested()
    acquired.lease.release()
    assert observer.notices == [f"{how}; press Ctrl-C again to stop immediately"]
