"""Ranks are forked only if they share nothing that the job's modules opened, and work with what these have used."""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import re
import socket
import sqlite3
import threading

import numpy as np
import pytest
import torch

from distrib.launch.process.fork_safety import ForkCheck, build_to_inherit
from distrib.train.process.handles import Handles

pytestmark = pytest.mark.timeout(120)

OPENED_AT_IMPORT = """
import os, struct
from pathlib import Path

PATH = Path(__file__).with_name("records.bin")
if not PATH.exists():
    temporary = PATH.with_suffix(f".{{os.getpid()}}")
    temporary.write_bytes(b"".join(struct.pack("<q", number) for number in range(400)))
    temporary.replace(PATH)
{opening}

import torch
from torch.utils.data import Dataset


class Records(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        for _ in range(50):
            number = read(index)
            if number != index:
                raise ValueError(f"asked for record {{index}}, got {{number}}")
        return torch.full([4], float(number)), number % 3
"""

FILE = """
FILE = open(PATH, "rb", buffering=0)

def read(index):
    FILE.seek(8 * index)
    os.sched_yield()
    return struct.unpack("<q", FILE.read(8))[0]
"""

SOCKET = """
import socket, threading
CLIENT, SERVER = socket.socketpair()

def read(index):
    CLIENT.send(struct.pack("<q", index))
    os.sched_yield()
    return struct.unpack("<q", SERVER.recv(8))[0]
"""

SHARED_MEMORY = """
import mmap
CELL = mmap.mmap(-1, 8)

def read(index):
    CELL[:8] = struct.pack("<q", index)
    os.sched_yield()
    return struct.unpack("<q", CELL[:8])[0]
"""

IN_A_CACHE = """
import functools

@functools.cache
def file():
    return open(PATH, "rb", buffering=0)

class Lazy:
    def __init__(self):
        file()

Lazy()

def read(index):
    file().seek(8 * index)
    os.sched_yield()
    return struct.unpack("<q", file().read(8))[0]
"""

USES_OPENMP = """
import torch
from launch_jobs import Samples

torch.set_num_threads(2)


def use_threads():
    torch.set_num_threads(2)
    return (torch.ones(2_000_000) + 1).sum()


class Prepared(Samples):
    def __init__(self, count):
        super().__init__(count)
        use_threads()

    def __getitem__(self, index):
        use_threads()
        return super().__getitem__(index)
"""


REPORTS_ITS_COMMAND = """
from pathlib import Path

from launch_jobs import Mlp


class Reporting(Mlp):
    def __init__(self):
        super().__init__()
        print("command:", Path("/proc/self/cmdline").read_text().replace(chr(0), " "))
"""


@pytest.mark.parametrize(
    ("opening", "is_forked"),
    [("", True), ("import pyarrow.dataset", True), ("FILE = open(__file__)", False)],
    ids=["plain", "pyarrow", "file"],
)
def test_ranks_are_forked_unless_that_is_unsafe(workplace, opening, is_forked):
    workplace.write("reporting.py", REPORTS_ITS_COMMAND + opening)
    launch = workplace.start("--set", "model.target=reporting:Reporting", "--set", "train.epochs=1")
    assert launch.wait(60) == 0, launch.stdout + launch.stderr
    for rank in range(2):
        (command,) = [line for line in launch.run.layout.rank_log(rank).read_text().splitlines() if "command:" in line]
        assert ("distrib run" in command) is is_forked
        assert ("spawned_main" in command) is not is_forked


@pytest.mark.parametrize("opening", [FILE, SOCKET, SHARED_MEMORY, IN_A_CACHE], ids=["file", "socket", "map", "cache"])
def test_what_a_module_opens_at_import_is_not_shared_by_ranks(workplace, opening):
    workplace.write("records.py", OPENED_AT_IMPORT.format(opening=opening))
    launch = workplace.start("--set", "data.train=records:Records", "--set", "train.epochs=1", "--workers", "3")
    assert launch.wait(100) == 0, launch.stdout + launch.stderr


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_openmp_can_be_used_before_the_fork_and_after(workplace, loader_workers):
    workplace.write("prepared.py", USES_OPENMP)
    data = "{target: prepared:Prepared, args: {count: 22}}"
    sets = [f"data.train={data}", f"data.eval={data}", f"data.loader_workers={loader_workers}", "train.epochs=2"]
    launch = workplace.start(*(f"--set={text}" for text in [*sets, "resources.cpus_per_worker=2"]))
    assert launch.wait(60) == 0, launch.stdout


@contextlib.contextmanager
def thread(name):
    """A thread of Python; with a name of its own it is one of a native library."""
    end = threading.Event()

    def work():
        if name is not None:
            ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
        end.wait(10)

    running = threading.Thread(target=work, name="background")
    running.start()
    yield
    end.set()
    running.join()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.open("rb"), "an open file: .*data"),
        (lambda path: socket.socket(), "an open file: socket:"),
        (lambda path: contextlib.closing(sqlite3.connect(path.with_name("db"))), "an open file: .*db"),
        (lambda path: np.memmap(path, mode="r+"), "writable shared memory: .*data"),
        (lambda path: mmap.mmap(-1, 4096), "writable shared memory: "),
        (lambda path: torch.zeros(4096).share_memory_(), "writable shared memory: "),
        (lambda path: multiprocessing.get_context("spawn").Lock(), "writable shared memory: "),
        (lambda path: thread(None), "a thread: background"),
    ],
    ids=["file", "socket", "database", "memmap", "anonymous map", "shared tensor", "lock", "thread"],
)
def test_what_makes_a_fork_unsafe(tmp_path, make, problem):
    path = tmp_path / "data"
    path.write_bytes(bytes(8192))
    check = ForkCheck(Handles.now())
    assert check.can_fork
    made = make(path)
    with made if hasattr(made, "__enter__") else contextlib.nullcontext():
        problems = check.problems()
    assert any(re.match(problem, found) for found in problems), problems


@pytest.mark.parametrize(
    "make",
    [
        lambda path: np.fromfile(path),
        lambda path: torch.from_file(str(path), size=8192, dtype=torch.uint8),
        lambda path: os.open(os.devnull, os.O_RDONLY),
        lambda path: os.open("/dev/urandom", os.O_RDONLY),
        lambda path: path.open("rb").close(),
    ],
    ids=["array", "private map", "null", "urandom", "closed file"],
)
def test_what_forked_processes_may_share(tmp_path, make):
    path = tmp_path / "data"
    path.write_bytes(bytes(8192))
    check = ForkCheck(Handles.now())
    made = make(path)
    assert check.can_fork, check.problems()
    del made


def test_a_process_with_a_past_is_not_forked():
    assert not ForkCheck(None).can_fork


def test_a_dataset_that_keeps_a_file_is_built_by_each_rank(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(8))
    built, can_inherit = build_to_inherit(lambda: path.open("rb"))
    assert not can_inherit
    built.close()
    _, can_inherit = build_to_inherit(path.read_bytes)
    assert can_inherit
