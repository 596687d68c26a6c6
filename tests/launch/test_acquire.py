"""Which run a launch gets: a new one, one to resume, or one that has finished; in a folder and in a bucket."""

import os

import pytest

from distrib.errors import JobError, LaunchError
from distrib.job.reader import Job
from distrib.launch.acquire import RunRequest, acquire_run, finished_notice
from distrib.runs.checkpoints import CheckpointFolder
from distrib.runs.run import Run
from distrib.runs.storage.open import open_rank, open_storage
from tests.support.s3_fixtures import bucket, s3_proxy, s3_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.timeout(60)

SPEC = """\
name: digits
model: jobs.digits:Mlp
data: {train: jobs.digits:Digits, batch_size: 8}
loss: torch.nn:CrossEntropyLoss
optimizer: torch.optim:AdamW
train: {steps: 9}
"""


@pytest.fixture(params=["folder", "bucket"])
def location(request, tmp_path):
    return str(tmp_path / "runs") if request.param == "folder" else request.getfixturevalue("bucket").url


@pytest.fixture
def make_job(tmp_path, location):
    path = tmp_path / "job.yaml"
    path.write_text(SPEC)
    return lambda *overrides: Job.load(path, overrides=[f"storage={location}", *overrides])


@pytest.fixture
def acquire(make_job):
    """Acquires a run; its lease is released at the end."""
    leases = []

    def acquire_(run_id="one", *overrides, num_steps=9, check_start=lambda: None, **options):
        request = RunRequest(make_job(*overrides), run_id, num_steps, **options)
        acquired = acquire_run(request, check_start)
        if acquired.lease is not None:
            leases.append(acquired.lease)
        return acquired

    yield acquire_
    for lease in leases:
        lease.release()


def begin(acquired, status="stopped", num_steps=9, step=None):
    """Leaves the run as a launch would that ended so, with a checkpoint of `step`."""
    acquired.run.create_record(name="digits", request={}, schedule={"total_steps": num_steps}, provenance={})
    if step is not None:
        rank = open_rank(str(acquired.run.location), 0, 0, acquired.lease.token)
        folder = CheckpointFolder.at(rank.layout.checkpoints, step, 0)
        folder.path.mkdir(parents=True)
        folder.state_file.write_text("{}")
        folder.write_part(0, [])
        rank.publish_part(folder, ["state.json"])
        rest = rank.commit(folder, 1, 2)
        if rest is not None:
            rest()
    acquired.run.update_record(status=status, attempt=2)
    acquired.lease.release()


def fail():
    raise JobError("the weights do not fit")


def test_a_new_run(acquire, location, make_job):
    acquired = acquire(None)
    assert acquired.is_new
    assert acquired.attempt == 0
    assert acquired.lease.is_held
    assert acquired.run.id.startswith("digits-")
    assert str(acquired.run.location) == f"{location}/{acquired.run.id}"
    assert Run(acquired.run.location).job_file.read_text() == make_job().text


def test_an_unfinished_run_is_resumed_by_the_next_attempt(acquire):
    begin(acquire(), step=4)
    acquired = acquire(check_start=fail)  # which is not called: it does not start from its first step
    assert (acquired.is_new, acquired.attempt, acquired.run.id) == (False, 3, "one")
    assert acquired.lease.is_held


def test_one_without_a_checkpoint_starts_again(acquire):
    begin(acquire())
    with pytest.raises(JobError, match="the weights do not fit"):
        acquire(check_start=fail)
    assert acquire().attempt == 3  # the lease was released


def test_a_finished_run_needs_no_lease(acquire):
    begin(acquire(), "finished", step=9)
    acquired = acquire()
    assert (acquired.lease, acquired.is_new, acquired.run.status) == (None, False, "finished")


def test_extending(acquire):
    begin(acquire(), "finished", step=9)
    assert acquire(is_extended=True).lease is None  # there is nothing more to do
    assert acquire("one", "train.steps=18", num_steps=18, is_extended=True).attempt == 3


def test_a_finished_run_says_what_would_extend_it(acquire, make_job):
    begin(acquire(), "finished", step=9)
    run = acquire().run
    plain, extended = (RunRequest(make_job(), "one", 9, is_extended=is_extended) for is_extended in (False, True))
    assert "it has 9 steps; `extend` continues it if you set train.steps above 9, `fresh`" in finished_notice(
        run, plain
    )
    assert "it has 9 steps; to extend it, set train.steps above 9, and `fresh`" in finished_notice(run, extended)


def test_the_numbers_of_a_schedule_may_change_only_where_a_run_is_extended(acquire):
    def cosine(length):
        schedule = f"schedule={{target: torch.optim.lr_scheduler:CosineAnnealingLR, args: {{T_max: {length}}}}}"
        return "one", schedule, "train.steps=18" if length > 9 else "train.steps=9"

    begin(acquire(*cosine(9)), "finished", step=9)
    with pytest.raises(JobError, match=r"what differs:\n  schedule: "):
        acquire(*cosine(18), num_steps=18)
    with pytest.raises(JobError, match="change no more than its length and the args of a schedule"):
        acquire(*cosine(18), "train.seed=4", num_steps=18, is_extended=True)
    with pytest.raises(JobError, match=r"what differs:\n  schedule: "):
        acquire(*cosine(18), "schedule.every=epoch", num_steps=18, is_extended=True)
    assert acquire(*cosine(18), num_steps=18, is_extended=True).attempt == 3


def test_fresh_ones_get_names_of_their_own(acquire, location):
    begin(acquire(), "finished")
    assert acquire(is_fresh=True).run.id == "one-2"
    assert acquire(is_fresh=True).run.id == "one-3"
    assert acquire("other", is_fresh=True).run.id == "other"
    assert open_storage(location).folders() == ["one", "one-2", "one-3", "other"]


def test_another_job_is_refused_and_the_run_stays_free(acquire):
    begin(acquire(), step=4)
    with pytest.raises(JobError, match=r"run one was made by another job; what differs:\n  train.seed: 0 then, 4 now"):
        acquire("one", "train.seed=4")
    with pytest.raises(JobError, match=r"train.steps: 9 then, 18 now\n.*`extend` to train beyond its end, or `fresh`"):
        acquire("one", "train.steps=18", num_steps=18)
    begin_again = acquire("one", "train.log_every=3")
    assert begin_again.attempt == 3


def test_a_job_that_ends_before_the_newest_checkpoint_is_refused(acquire):
    begin(acquire(), step=7)
    with pytest.raises(JobError, match="has a checkpoint of step 7, but the job now ends at step 5"):
        acquire("one", "train.steps=5", num_steps=5, is_extended=True)


def test_a_run_that_is_held_is_refused(acquire):
    held = acquire()
    with pytest.raises(LaunchError, match="run one is held by process"):
        acquire()
    assert held.lease.is_held


def test_a_job_that_cannot_start_leaves_nothing_behind(acquire, location):
    with pytest.raises(JobError, match="the weights do not fit"):
        acquire(check_start=fail)
    assert open_storage(location).list() == []


class TestInAFolder:
    @pytest.fixture
    def location(self, tmp_path):
        return str(tmp_path / "runs")

    def test_a_file_in_the_place_of_the_run_is_refused(self, acquire, tmp_path):
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "one").write_text("mine")
        with pytest.raises(JobError, match=r"runs/one is a file, so it cannot hold a run; .*--run-id"):
            acquire()
        assert (tmp_path / "runs" / "one").read_text() == "mine"
        assert acquire(is_fresh=True).run.id == "one-2"

    def test_a_job_that_cannot_start_leaves_no_folder(self, acquire, tmp_path):
        with pytest.raises(JobError, match="the weights do not fit"):
            acquire(check_start=fail)
        assert os.listdir(tmp_path / "runs") == []

    def test_a_folder_that_cannot_be_written_is_refused(self, acquire, tmp_path):
        (tmp_path / "runs").write_text("a file")
        with pytest.raises(JobError, match="storage: cannot write to"):
            acquire()
