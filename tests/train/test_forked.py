"""Work in a forked process: it leaves nothing behind, and what cannot be forked is no error."""

import os
import resource

import pytest

from distrib.train.process.forked import run_forked

pytestmark = pytest.mark.timeout(60)


def test_the_answer_comes_back_and_file_positions_stay(tmp_path):
    (tmp_path / "data").write_bytes(b"0123456789")
    with (tmp_path / "data").open("rb", buffering=0) as file:
        file.seek(2)
        assert run_forked(lambda: file.read(3), 10) == b"234"
        assert file.tell() == 2


def test_a_process_with_many_open_files_can_ask_too():
    """More than `select` takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("needs 1,200 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    opened = []
    try:
        while not opened or opened[-1] < 1100:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        assert run_forked(lambda: b"answer", 10) == b"answer"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_is_closed_meanwhile_is_let_go():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    close = iter([lambda: os.close(descriptor)])
    real = os.waitpid

    def waitpid(pid, options):
        for call in close:
            call()
        return real(pid, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "waitpid", waitpid)
        assert run_forked(lambda: b"answer", 10) == b"answer"


def test_where_no_process_can_be_had_there_is_no_answer(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    assert run_forked(lambda: b"answer", 10) == b""
    assert set(os.listdir("/proc/self/fd")) == before
