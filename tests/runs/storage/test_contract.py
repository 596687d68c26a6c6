"""The contracts that a local folder and an object store both keep: objects, one run, a rank of it."""

import os
import threading
import time

import pytest

from distrib.errors import JobError
from distrib.runs.checkpoints import CheckpointFolder, DamagedError, describe_file
from distrib.runs.events import EventWriter
from distrib.runs.lease import LEASE, LostRunError
from distrib.runs.run import Run
from distrib.runs.storage.open import open_rank, open_run, open_storage

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["folder", "bucket"])
def location(request, tmp_path):
    """Where runs are kept."""
    return str(tmp_path / "runs") if request.param == "folder" else request.getfixturevalue("bucket").url


@pytest.fixture
def storage(location):
    return open_storage(location)


class TestStorage:
    def test_put_get_exists(self, storage):
        assert not storage.exists("a/b")
        storage.put("a/b", b"one")
        storage.put("a/b", b"two")
        assert storage.is_there
        assert storage.exists("a/b")
        assert not storage.exists("a")
        assert storage.get("a/b") == storage.get_json("a/b") == b"two"
        storage.put("empty", b"")
        assert storage.get("empty") == b""

    def test_files(self, storage, tmp_path):
        content = os.urandom(13_000_000)
        (tmp_path / "source").write_bytes(content)
        storage.put_file("a/b", tmp_path / "source")
        assert storage.get("a/b") == content
        storage.get_file("a/b", tmp_path / "below" / "target")
        assert (tmp_path / "below" / "target").read_bytes() == content
        assert os.listdir(tmp_path / "below") == ["target"]

    def test_nothing_there(self, storage, tmp_path):
        with pytest.raises(FileNotFoundError):
            storage.get("a")
        with pytest.raises(FileNotFoundError):
            storage.get_file("a", tmp_path / "target")
        with pytest.raises(FileNotFoundError):
            storage.put_file("a", tmp_path / "nothing")
        assert not storage.exists("a")
        assert not (tmp_path / "target").exists()
        assert storage.list() == storage.folders() == []

    def test_a_prefix_covers_an_object_or_a_folder_never_a_part_of_a_name(self, storage):
        for name in ("step-1/x", "step-1/y/z", "step-10/x", "z"):
            storage.put(name, b"")
        assert storage.list() == ["step-1/x", "step-1/y/z", "step-10/x", "z"]
        assert storage.list("step-1") == ["step-1/x", "step-1/y/z"]
        assert storage.list("z") == ["z"]
        assert storage.list("nothing") == []
        assert storage.folders() == ["step-1", "step-10"]
        assert storage.below("step-1").list() == ["x", "y/z"]
        storage.delete("step-1")
        storage.delete("z")
        storage.delete("nothing")
        storage.delete("z/below a file")
        assert storage.list() == ["step-10/x"]

    def test_sizes(self, storage):
        storage.put("a/x", b"123")
        storage.put("b/c/y", b"1")
        assert storage.sizes() == {"a/x": 3, "b/c/y": 1}
        assert storage.sizes("b") == {"b/c/y": 1}

    @pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
    def test_names_stay_inside(self, storage, name):
        with pytest.raises(ValueError, match="not a name"):
            storage.get(name)

    def test_everything_is_never_deleted_at_once(self, storage):
        with pytest.raises(ValueError, match="everything"):
            storage.delete("")

    def test_check_writable_leaves_nothing(self, storage):
        storage.check_writable()
        assert storage.list() == []


@pytest.fixture
def run(location):
    """A run that is trained here, with its lease."""
    run = Run(f"{location}/one", is_training=True)
    run.lease = run.storage.acquire()
    run.storage.prepare(run.lease)
    run.create_record(name="digits", request={}, schedule={"total_steps": 9}, provenance={})
    yield run
    run.lease.release()


@pytest.fixture
def make_rank(run, location):
    return lambda rank=0, attempt=0: open_rank(f"{location}/one", rank, attempt, run.lease.token)


def write_event(run, step, event="train", attempt=0, **fields):
    with EventWriter(run.layout.metrics_file, attempt) as events:
        events.write(event, step=step, epoch=0, samples=step, **fields)
    run.storage.publish_events(attempt)


class TestRun:
    """What a process that trains a run writes, seen by another process through a `Run` of its own."""

    def test_a_run_that_does_not_exist(self, location):
        run = Run(f"{location}/nothing")
        assert not run.exists
        with pytest.raises(JobError, match=r"nothing is not a run: it has no run\.json"):
            run.record  # noqa: B018
        with pytest.raises(FileNotFoundError):
            run.refresh()
        assert run.events() == []
        assert run.checkpoints.list() == []

    def test_names(self, location):
        run = Run(f"{location}/one")
        assert (run.id, str(run.location), str(run.storage.runs_location)) == ("one", f"{location}/one", location)
        assert str(run.storage.location_of(run.layout.weights_file)) == f"{location}/one/model.safetensors"
        assert run.storage.poll_seconds > 0

    def test_the_record_and_the_job(self, run, location):
        run.write_job("name: digits\n")
        seen = Run(f"{location}/one")
        assert (seen.exists, seen.status, seen.record["name"]) == (True, "running", "digits")
        assert seen.job_file.read_text() == "name: digits\n"
        run.update_record(status="finished")
        run.write_job("name: other\n")
        seen.refresh()
        assert seen.status == "finished"
        assert seen.job_file.read_text() == "name: other\n"

    def test_events(self, run, location):
        write_event(run, 1, loss=2.0)
        seen = Run(f"{location}/one")
        assert [event["step"] for event in seen.events()] == [1]
        write_event(run, 5, loss=1.0)
        write_event(run, 5, "eval", loss=0.5, accuracy=0.75)
        seen.refresh()
        assert seen.steps == (5, 9)
        assert seen.metrics == {"loss": 0.5, "accuracy": 0.75}
        assert [event["step"] for event in seen.events()] == [1, 5, 5]
        assert b"".join(reversed([line + b"\n" for line in seen.storage.events_backwards() if line])) == (
            seen.metrics_file.read_bytes()
        )

    def test_weights(self, run, location):
        seen = Run(f"{location}/one")
        assert seen.weights_location is None
        assert not seen.weights.exists()
        run.layout.weights_file.write_bytes(b"weights")
        run.storage.publish(run.layout.weights_file)
        run.storage.publish(run.layout.best_file)  # which does not exist
        assert str(seen.weights_location) == f"{location}/one/model.safetensors"
        assert seen.weights.read_bytes() == b"weights"
        assert not seen.best_weights.exists()

    def test_one_launcher_at_a_time(self, run, location):
        with pytest.raises(Exception, match="run one is held by process"):
            open_run(f"{location}/one", is_training=True).acquire()
        run.lease.release()
        lease = open_run(f"{location}/one", is_training=True).acquire()
        assert lease.is_held
        assert not run.lease.is_held
        lease.release()

    def test_leftovers_of_killed_ranks(self, run, location):
        log = run.layout.rank_log(1)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("last words\n")
        samples = run.layout.samples_file(1)
        samples.parent.mkdir(parents=True, exist_ok=True)
        samples.write_text('{"step": 1}\n')
        run.storage.publish_leftovers(0)
        seen = Run(f"{location}/one")
        seen.storage.fetch_logs()
        assert seen.layout.rank_log(1).read_text() == "last words\n"
        other = Run(f"{location}/one", is_training=True)
        run.lease.release()
        other.storage.prepare(other.storage.acquire())
        assert other.layout.samples_file(1).read_text() == '{"step": 1}\n'

    def test_syncing_renews_the_lease_and_notices_its_loss(self, run, storage, monkeypatch):
        monkeypatch.setattr("distrib.runs.lease._RENEWAL_SECONDS", 0.0)
        sync = run.storage.sync(run.lease)
        sync.follow(0)
        before = storage.get(f"one/{LEASE}")

        def poll_until(condition):
            deadline = time.monotonic() + 20
            while not condition():
                sync.poll()
                assert time.monotonic() < deadline
                time.sleep(0.02)

        poll_until(lambda: storage.get(f"one/{LEASE}") != before)
        sync.join()
        storage.put(f"one/{LEASE}", b'{"token": "theirs", "owner": {}}')
        with pytest.raises(LostRunError, match="was taken over by another launcher"):
            poll_until(lambda: False)
        sync.finish()


def save(rank, number, step=7):
    """Writes one rank's part of a checkpoint, and publishes it."""
    folder = CheckpointFolder.at(rank.layout.checkpoints, step, 0)
    folder.path.mkdir(parents=True, exist_ok=True)
    names = [f"file-{number}"]
    (folder.path / names[0]).write_bytes(bytes(10 + number))
    if number == 0:
        folder.state_file.write_text("{}")
    folder.write_part(number, names)
    rank.publish_part(folder, [*names, *(["state.json"] if number == 0 else [])])
    return folder


def commit(ranks, folder, keep=2):
    for rest in [rank.commit(folder, len(ranks), keep) for rank in ranks]:
        if rest is not None:
            thread = threading.Thread(target=rest)
            thread.start()
            thread.join()


class TestRank:
    def test_a_checkpoint_is_committed_once_all_have_published_their_parts(self, run, make_rank, location):
        ranks = [make_rank(0), make_rank(1)]
        folders = [save(rank, number) for number, rank in enumerate(ranks)]
        seen = Run(f"{location}/one")
        assert seen.checkpoints.list() == ranks[0].checkpoints.list() == []
        commit(ranks, folders[0])
        (found,) = seen.checkpoints.list()
        assert (found.step, found.attempt) == (7, 0)
        seen.checkpoints.fetch(found)
        assert set(found.files()) == {"state.json", "file-0", "file-1"}
        found.verify(found.files(), found.files())
        assert describe_file(found.path / "file-1")["bytes"] == 11
        assert seen.checkpoints.at(7, 0) == found

    def test_old_ones_are_deleted(self, run, make_rank, location):
        rank = make_rank()
        for step in (7, 14, 21):
            commit([rank], save(rank, 0, step))
        assert [folder.step for folder in Run(f"{location}/one").checkpoints.list()] == [21, 14]

    def test_an_uncommitted_one_is_deleted_by_the_next_attempt(self, run, make_rank, storage):
        save(make_rank(), 0)
        assert any("step-00000007-a0" in name for name in storage.list("one/checkpoints"))
        run.checkpoints.remove_uncommitted()
        assert storage.list("one/checkpoints") == []
        assert not CheckpointFolder.at(run.layout.checkpoints, 7, 0).path.exists()

    def test_a_damaged_one_is_set_aside_and_kept(self, run, make_rank, storage):
        rank = make_rank()
        folder = save(rank, 0)
        commit([rank], folder)
        rank.checkpoints.set_aside(folder, "damaged")
        assert rank.checkpoints.list() == []
        run.checkpoints.remove_uncommitted()
        assert any(name.endswith("file-0") for name in storage.list("one/checkpoints"))

    def test_damage_is_found(self, run, make_rank, storage, location):
        rank = make_rank()
        commit([rank], save(rank, 0))
        storage.put("one/checkpoints/step-00000007-a0/file-0", b"x" * 10)
        seen = Run(f"{location}/one")
        (found,) = seen.checkpoints.list()

        def read():
            seen.checkpoints.fetch(found)
            found.verify(found.files(), found.files())

        with pytest.raises(DamagedError, match="step-00000007-a0/file-0"):
            read()

    def test_a_discarded_one_is_gone(self, run, make_rank):
        rank = make_rank()
        folder = save(rank, 0)
        rank.discard(folder)
        assert not folder.path.exists()
        assert rank.checkpoints.list() == []

    def test_without_the_lease_nothing_is_committed(self, run, make_rank, storage, location):
        rank = make_rank()
        folder = save(rank, 0)
        rank.check_held()
        storage.put(f"one/{LEASE}", b'{"token": "theirs", "owner": {}}')
        with pytest.raises(LostRunError):
            rank.check_held()
        errors = []

        def try_commit():
            try:
                rest = rank.commit(folder, 1, 2)
                if rest is not None:
                    rest()
            except LostRunError as error:
                errors.append(error)

        try_commit()
        assert len(errors) == 1
        assert Run(f"{location}/one").checkpoints.list() == []

    def test_records_output_and_files(self, run, make_rank, location):
        rank = make_rank()
        rank.check_visible()
        rank.start()
        with EventWriter(rank.layout.metrics_file, 0) as events:
            events.write("train", step=3, epoch=0, samples=3)
        rank.layout.best_file.write_bytes(b"best")
        rank.publish(rank.layout.best_file)
        rank.publish_records()
        rank.close(has_failed=False)
        assert rank.take_notices() == []
        seen = Run(f"{location}/one")
        assert [event["step"] for event in seen.events()] == [3]
        assert seen.best_weights.read_bytes() == b"best"
