"""A failed run says which rank failed, where in the user's code, and what kind of failure it was."""

import time

import pytest
import torch.distributed as dist
from exact_reference import global_batch, part
from exact_runs import JOBS
from exact_specs import BATCH_SIZE, NUM_SAMPLES, POISONED, SEED, STEPS_PER_EPOCH

import distrib
from distrib.errors import DistribError
from distrib.launch.watch.failure_cause import log_errors
from distrib.train.context import RankInfo
from distrib.train.failure import Failure, NonFiniteLossError, PeerFailedError

PLACE = RankInfo(rank=3, world_size=4, local_rank=1, host_name="node7")
PACKAGE = distrib.__path__[0]


def line_of(text):
    """The only line of the jobs with that text."""
    (number,) = [n for n, line in enumerate(JOBS.read_text().splitlines(), start=1) if text in line]
    return number


@pytest.mark.timeout(120)
@pytest.mark.runs("poisoned")
def test_a_loss_that_is_not_finite_ends_the_run(run):
    batches = [global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, step) for step in range(STEPS_PER_EPOCH)]
    (step,) = [number for number, batch in enumerate(batches) if POISONED in batch]
    (rank,) = [rank for rank in range(2) if POISONED in part(batches[step], rank, 2)]
    error = run.output["error"]
    assert (run.exit_code, run.output["status"]) == (1, "failed")
    assert (error["rank"], error["type"], error["kind"]) == (rank, "NonFiniteLossError", "user")
    assert f"at step {step + 1} (epoch 1) on rank {rank}" in error["message"]
    assert ", ".join(map(str, part(batches[step], rank, 2))) in error["message"]
    assert error["traceback"] is None
    assert not run.layout.weights_file.exists()


@pytest.mark.timeout(120)
@pytest.mark.runs("faulty")
def test_an_error_of_the_users_names_its_rank_and_shows_only_the_users_frames(run):
    error = run.output["error"]
    assert (run.exit_code, run.output["status"]) == (1, "failed")
    assert (error["rank"], error["type"], error["kind"]) == (1, "ValueError", "user")
    assert error["message"] == "no such label: 7"
    assert f'"{run.folder / "exact_jobs.py"}", line {line_of("no such label")}, in forward' in error["traceback"]
    assert "ValueError: no such label: 7" in error["traceback"]
    assert PACKAGE not in error["traceback"]
    assert "Traceback" in run.layout.rank_log(1).read_text()


@pytest.mark.timeout(120)
@pytest.mark.runs("unreadable")
def test_an_error_of_the_users_in_a_loader_worker_is_the_users_too(run):
    error = run.output["error"]
    assert (run.exit_code, error["type"], error["kind"]) == (1, "KeyError", "user")
    assert "no file for sample 5" in error["message"]
    assert "exact_jobs.py" in error["traceback"]


def raised(error):
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no such label"), "user"),
        (RuntimeError("shapes cannot be multiplied"), "user"),
        (KeyError("label"), "user"),
        (NonFiniteLossError("step 3"), "user"),
        (MemoryError(), "user"),
        (PeerFailedError("rank 2"), "infrastructure"),
        (ConnectionResetError("Connection reset by peer"), "infrastructure"),
        (dist.DistBackendError("NCCL error"), "infrastructure"),
        (dist.DistNetworkError("The client socket has failed"), "infrastructure"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:1"), "infrastructure"),
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."), "infrastructure"),
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1000ms for recv"), "hang"),
        (dist.DistStoreError("wait timeout after 1000ms"), "hang"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_kinds(error, kind):
    assert Failure.of(raised(error), PLACE).kind == kind


def test_a_failure_comes_back_as_it_was_written(tmp_path):
    before = time.time()
    failure = Failure.of(raised(ValueError("niño ☃")), PLACE)
    failure.write(tmp_path / "error.json")
    assert Failure.read(tmp_path / "error.json") == failure
    assert (failure.rank, failure.host, failure.type, failure.message) == (3, "node7", "ValueError", "niño ☃")
    assert before <= failure.time <= time.time()
    assert failure.as_dict()["kind"] == "user"


@pytest.mark.parametrize("content", [b"", b'{"rank": 0', b"[]", b'{"rank": 0}', b"\xff"])
def test_what_is_no_failure_is_read_as_none(tmp_path, content):
    (tmp_path / "error.json").write_bytes(content)
    assert Failure.read(tmp_path / "error.json") is None
    assert Failure.read(tmp_path / "missing.json") is None


def test_an_error_that_is_a_message_has_no_traceback():
    assert Failure.of(raised(DistribError("remedy")), PLACE).traceback is None


def test_an_error_of_the_package_itself_keeps_its_frames():
    with pytest.raises(AttributeError) as caught:
        distrib.no_such_name  # noqa: B018
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    assert PACKAGE in Failure.of(error, PLACE).traceback


class Unprintable(Exception):
    """Like an exception whose text needs attributes that were never set."""

    def __str__(self):
        raise AttributeError("no text")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad \udcff\ud800 name"), "bad \udcff\ud800 name"),
        (Unprintable(), "(its text cannot be shown: AttributeError)"),
        (ValueError(b"\xff"), r"b'\xff'"),
        (ValueError(None), "None"),
        (ExceptionGroup("several", [ValueError("a"), TypeError("b")]), "several (2 sub-exceptions)"),
    ],
)
def test_any_exception_can_be_written_and_read_again(tmp_path, error, message):
    try:
        raise error
    except Exception as raised:
        failure = Failure.of(raised, PLACE)
    failure.write(tmp_path / "error.json")
    found = Failure.read(tmp_path / "error.json")
    assert found == failure
    assert (found.kind, found.type, found.message) == ("user", type(error).__name__, message)
    log_errors(tmp_path, {3: found})
    (tmp_path / "logs").mkdir()
    log_errors(tmp_path, {3: found})
    assert type(error).__name__ in (tmp_path / "logs" / "rank-3.log").read_text()


def test_a_huge_text_is_shortened():
    failure = Failure.of(ValueError("begin" + "x" * 5_000_000 + "end"), PLACE)
    assert len(failure.message) < 100_000
    assert failure.message.startswith("begin")
    assert failure.message.endswith("end")
