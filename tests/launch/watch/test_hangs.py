"""Ranks that hang are named, with their stacks, and restarted; ranks that are only slow are left alone."""

import re
import socket
import threading
import time
from pathlib import Path

import pytest

from distrib.launch.watch.hangs import Hang, HangWatch, describe, is_hang
from distrib.launch.watch.stacks import describe_main_thread
from distrib.train.failure import Failure, error_text
from distrib.train.phases import Phase, Position, RankProgress
from distrib.train.process.tracebacks import is_raised_by_torch

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def workplace(quick_workplace):
    """Launches are forks."""
    return quick_workplace


def fault(workplace, name, step, rank=1):
    args = f"{{fault: {name}, notes: {workplace.notes}, rank: {rank}, step: {step}}}"
    return f"model={{target: launch_jobs:Faulty, args: {args}}}"


def start(workplace, *sets):
    return workplace.start(*(f"--set={text}" for text in ["failures.hang_timeout=3", *sets]))


def test_a_lone_rank_that_hangs_before_its_first_step_is_restarted(workplace):
    launch = start(workplace, fault(workplace, "sleep", 0, rank=0), "resources.workers=1")
    assert launch.wait(60) == 0, launch.stdout
    (restart,) = [event for event in launch.run.events() if event["event"] == "restart"]
    assert re.search(r"RankHangs: no step has ended for \d+ s: rank 0 on \S+ has been in forward", restart["message"])
    assert "in forward" in launch.run.layout.rank_log(0).read_text()


def test_a_rank_that_hangs_inside_a_weighted_step_is_the_one_that_is_named(workplace):
    workplace.write("weighted.py", WEIGHTED)
    sets = [f"step={{target: weighted:step, args: {{notes: {workplace.notes}}}}}", "loss=null"]
    launch = start(workplace, *sets, "resources.workers=3")
    assert launch.wait(90) == 0, launch.stdout
    (restart,) = [event for event in launch.run.events() if event["event"] == "restart"]
    assert restart["message"].startswith("rank 1 on ")
    assert "RankHangs" in restart["message"]


WEIGHTED = """
import time
from pathlib import Path

import torch.distributed as dist
from torch.nn.functional import cross_entropy


def step(model, batch, notes):
    inputs, targets = batch
    loss = cross_entropy(model(inputs), targets)
    note = Path(notes)
    if dist.get_rank() == 1 and not note.exists():
        note.touch()
        time.sleep(60)
    return {"loss": loss, "weight": float(len(targets)) + 0.5}
"""


HANGING = """
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from launch_jobs import Mlp, Samples

def strike(notes, rank=1):
    note = Path(notes)
    if dist.is_initialized() and dist.get_rank() == rank and not note.exists():
        note.touch()
        time.sleep(60)


def loss(outputs, targets, notes):
    if len(seen) == 2:
        strike(notes)
    seen.append(1)
    return cross_entropy(outputs, targets)


seen = []


class Callback:
    def __init__(self, notes, place):
        self._notes, self._place, self._num_steps = notes, place, 0

    def on_step(self, session, output):
        self._num_steps += 1
        if self._place == "callback" and self._num_steps == 3:
            strike(self._notes)

    def state_dict(self):
        if self._place == "snapshot" and self._num_steps >= 3:
            strike(self._notes)
        return {}

    def load_state_dict(self, state):
        pass


class Loading(torch.utils.data.Dataset):
    def __init__(self, count, notes):
        self._samples, self._notes, self._num_loaded = Samples(count), notes, 0

    def __len__(self):
        return len(self._samples)

    def __getitem__(self, index):
        self._num_loaded += 1
        if self._num_loaded == 8:
            strike(self._notes)
        return self._samples[index]


class Pause(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, notes):
        ctx.notes = notes
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        strike(ctx.notes)
        return gradient, None


class Model(Mlp):
    def __init__(self, notes, place):
        super().__init__()
        self._notes, self._place, self._num_passes = notes, place, 0
        self._group = None

    def forward(self, inputs):
        self._num_passes += 1
        if self._group is None and self._place == "collective":
            self._group = dist.new_group(backend="gloo")
        if self._num_passes >= 3:
            if self._place == "backward":
                return Pause.apply(super().forward(inputs), self._notes)
            if self._place == "forward":
                strike(self._notes)
            note = Path(self._notes)
            if self._place == "collective" and dist.get_rank() == 1 and not note.exists():
                note.touch()
                dist.all_reduce(torch.ones(1), group=self._group)
            if self._place == "evaluation" and not self.training:
                strike(self._notes)
        return super().forward(inputs)
"""


def hang_in(workplace, place, *sets, on="local"):
    """Runs a job of three ranks of which rank 1 hangs once at its third step; returns the launch and the restart."""
    workplace.write("hanging.py", HANGING)
    if place in ("callback", "snapshot"):
        fault = f"callbacks=[{{target: hanging:Callback, args: {{notes: {workplace.notes}, place: {place}}}}}]"
    elif place == "loss":
        fault = f"loss={{target: hanging:loss, args: {{notes: {workplace.notes}}}}}"
    elif place == "data":
        fault = f"data.train={{target: hanging:Loading, args: {{count: 22, notes: {workplace.notes}}}}}"
    else:
        fault = f"model={{target: hanging:Model, args: {{notes: {workplace.notes}, place: {place}}}}}"
    arguments = ["failures.hang_timeout=4", "resources.workers=3", fault, *sets]
    launch = workplace.start("--on", on, *(f"--set={text}" for text in arguments))
    assert launch.wait(140) == 0, launch.stdout + launch.stderr
    (restart,) = [event for event in launch.run.events() if event["event"] == "restart"]
    return launch, restart


@pytest.mark.parametrize(
    ("place", "phase", "where"),
    [
        ("data", "data", "in strike"),
        pytest.param("forward", "forward", "in strike", marks=pytest.mark.long),
        ("backward", "backward", "in strike"),
        ("collective", "forward", "in forward, which waits in the collective all_reduce"),
        pytest.param("loss", "forward", "in strike", marks=pytest.mark.long),
        pytest.param("evaluation", "evaluation", "in strike", marks=pytest.mark.long),
        pytest.param("callback", "callbacks", "in strike", marks=pytest.mark.long),
        pytest.param("snapshot", "snapshot", "in strike", marks=pytest.mark.long),
    ],
)
def test_the_rank_that_hangs_is_named_with_its_phase_and_its_line(workplace, place, phase, where):
    evaluation = ["data.eval={target: launch_jobs:Samples, args: {count: 10}}"] if place == "evaluation" else []
    launch, restart = hang_in(workplace, place, *evaluation)
    message, host = restart["message"], socket.gethostname()
    assert message.startswith(f"rank 1 on {host} failed: RankHangs: no step has ended for ")
    assert re.search(rf"rank 1 on {host} has been in {phase} for \d+ s; the others wait in reduce; ", message), message
    assert where in message
    for rank in range(3):  # each with its stacks
        assert "most recent call first" in launch.run.layout.rank_log(rank).read_text()
    assert "most recent call first" not in launch.stdout + launch.stderr
    assert restart["time"] - workplace.notes.stat().st_mtime < 45  # it sleeps for 60


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("place", ["data", "collective"])
def test_ranks_on_ray_that_hang_are_named_too(workplace, place):
    launch, restart = hang_in(workplace, place, on="ray")
    phase = "data" if place == "data" else "forward"
    message = restart["message"]
    assert re.search(
        rf"rank 1 on \S+ has been in {phase} for \d+ s; the others wait in reduce; at hanging.py:", message
    )
    for rank in range(3):
        assert "most recent call first" in launch.run.layout.rank_log(rank).read_text()
    assert restart["time"] - workplace.notes.stat().st_mtime < 50  # it sleeps for 60


def test_ranks_that_wait_for_data_longer_than_the_timeout_are_left_alone(workplace):
    """Steps of 2 s that are not logged for 6 s."""
    data = "data.train={target: launch_jobs:SlowSamples, args: {count: 12, seconds: 0.5}}"
    launch = start(workplace, data, "data.batch_size=4", "train.epochs=1", "train.log_every=100", "resources.workers=1")
    assert launch.wait(60) == 0, launch.stdout
    assert not [event for event in launch.run.events() if event["event"] == "restart"]


def test_a_stop_while_waiting_for_data_keeps_what_was_trained(workplace):
    """The first steps come from prefetched batches; then each takes 1 s."""
    data = "data.train={target: launch_jobs:SlowSamples, args: {count: 400, seconds: 0.25, first: 32}}"
    sets = [data, "data.batch_size=8", "failures.grace=20", "checkpoint.every=1 epoch", "train.log_every=1"]
    launch = workplace.start(*(f"--set={text}" for text in sets))
    launch.wait_for_step(5)
    launch.send(15)
    assert launch.wait(60) == 130, launch.stdout
    assert "checkpoint" in [event["event"] for event in launch.run.events()]


def failure(rank, kind="user", is_in_collective=False):
    return Failure(rank, "host", "RuntimeError", f"of {rank}", None, kind, float(rank), is_in_collective)


def test_an_error_in_a_collective_while_others_are_silent_is_a_hang_only_after_the_wait():
    written = {0: failure(0, is_in_collective=True)}
    assert is_hang(written, [1], has_waited=True)
    assert not is_hang(written, [1], has_waited=False)
    assert not is_hang(written, [], has_waited=True)
    assert not is_hang({**written, 2: failure(2)}, [1], has_waited=True)


def test_errors_of_torch_itself_are_told_from_those_of_user_code():
    import torch

    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise RuntimeError("mine")

    for x, expected in ((Mine.apply(torch.ones(1, requires_grad=True)), False), (torch.ones(1), True)):
        with pytest.raises(RuntimeError) as caught:
            x.sum().backward()
        assert is_raised_by_torch(caught.value) is expected


def test_any_exception_text_can_be_reported():
    class Unprintable(Exception):
        def __str__(self):
            raise ValueError("no text")

    assert error_text(Unprintable()) == "(its text cannot be shown: ValueError)"
    assert len(error_text(ValueError("x" * 10**6))) < 10**5
    assert error_text(ValueError("\udcff")) == "\udcff"


class Ranks:
    """Positions and CPU time that the test sets."""

    def __init__(self, *positions):
        self.positions, self.cpu = dict(enumerate(positions)), 0.0

    def read(self):
        return dict(self.positions)

    def cpu_seconds(self):
        return dict.fromkeys(self.positions, 0.0) | {len(self.positions) - 1: self.cpu}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("distrib.launch.watch.hangs.time.monotonic", lambda: self.now)
        monkeypatch.setattr("distrib.launch.watch.hangs.time.monotonic_ns", lambda: int(self.now * 1e9))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def at(step, phase, clock):
    return Position(step, phase, int(clock.now * 1e9))


def seconds_until_hang(clock, ranks, timeout=20, cpu_share=0.0, limit=2000):
    watch, began = HangWatch(ranks, timeout, is_script=False), clock.now
    while clock.now - began < limit:
        clock.now += 1.1
        ranks.cpu += 1.1 * cpu_share
        if (hang := watch.poll()) is not None:
            return clock.now - began, hang.late
    return None


@pytest.mark.parametrize(
    ("step", "phase", "cpu_share", "expected"),
    [
        (5, Phase.DATA, 0.0, (20, 30)),
        (5, Phase.FORWARD, 1.0, (20, 30)),  # the other rank has waited, so that it makes no difference
        (0, Phase.FORWARD, 1.0, (600, 620)),  # it may compile something
        (0, Phase.FORWARD, 0.0, (20, 30)),
        (5, Phase.EVALUATION, 1.0, (600, 620)),
        (5, Phase.CHECKPOINT, 0.0, (600, 620)),
    ],
)
def test_how_long_the_others_wait_for_a_rank(clock, step, phase, cpu_share, expected):
    ranks = Ranks(at(5, Phase.REDUCE, clock), at(step, phase, clock))
    seconds, late = seconds_until_hang(clock, ranks, cpu_share=cpu_share)
    assert expected[0] <= seconds <= expected[1]
    assert late == (1,)


def test_a_stall_is_shown_once_before_it_is_a_hang(clock):
    ranks = Ranks(at(5, Phase.REDUCE, clock), at(5, Phase.DATA, clock))
    watch, shown = HangWatch(ranks, 60, is_script=False), []
    for _ in range(30):
        clock.now += 1.1
        assert watch.poll() is None
        if (stall := watch.new_stall()) is not None:
            shown.append(describe(stall, {}))
    (text,) = shown
    assert re.fullmatch(
        r"no step has ended for 1\d s: rank 1 has been in data for 1\d s; the other waits in reduce", text
    )


def test_a_stall_is_shown_whatever_the_timeout(clock):
    ranks = Ranks(at(5, Phase.REDUCE, clock), at(5, Phase.DATA, clock))
    watch, shown = HangWatch(ranks, 1800, is_script=False), []
    for _ in range(500):
        clock.now += 1.1
        assert watch.poll() is None
        if (stall := watch.new_stall()) is not None:
            shown.append(stall.late)
    assert shown == [(1,)]


def test_many_ranks_whose_threads_poll_are_idle_and_one_that_computes_is_not(clock):
    """The share of a CPU is that of a rank, not of all together."""
    ranks = Ranks(*(at(5, Phase.DATA, clock) for _ in range(64)))
    watch = HangWatch(ranks, 20, is_script=False)

    def poll(shares):
        clock.now += 1.1
        for rank, share in enumerate(shares):
            used[rank] += 1.1 * share
        return watch.poll()

    used = [0.0] * 64
    ranks.cpu_seconds = lambda: dict(enumerate(used))
    assert all(poll([0.0] * 63 + [1.0]) is None for _ in range(100))
    assert any(poll([0.01] * 64) is not None for _ in range(30))


@pytest.mark.parametrize("phase", [Phase.FORWARD, Phase.EVALUATION, Phase.CHECKPOINT])
@pytest.mark.parametrize("step", [0, 5])
def test_a_busy_rank_that_nobody_waits_for_does_not_hang(clock, step, phase):
    assert seconds_until_hang(clock, Ranks(at(step, phase, clock)), cpu_share=1.0) is None


def test_the_time_for_which_all_processes_were_stopped_does_not_count(clock):
    ranks = Ranks(at(5, Phase.REDUCE, clock), at(5, Phase.FORWARD, clock))
    watch = HangWatch(ranks, 20, is_script=False)
    clock.now += 1000
    assert watch.poll() is None
    clock.now += 1.1
    assert watch.poll() is None
    assert seconds_until_hang(clock, ranks)[0] < 30


def test_a_script_that_reports_no_steps_is_not_known_to_have_waited(clock):
    ranks = Ranks(at(0, Phase.START, clock))
    watch = HangWatch(ranks, 20, is_script=True)
    for _ in range(60):
        clock.now += 1.1
        watch.poll()
    assert not watch.has_waited


def test_steps_that_vary_tenfold_raise_no_alarm(clock):
    ranks = Ranks(at(1, Phase.REDUCE, clock), at(1, Phase.DATA, clock))
    watch = HangWatch(ranks, 20, is_script=False)
    for step in range(1, 200):
        for _ in range(15 if step % 10 == 0 else 1):
            clock.now += 1.1
            assert watch.poll() is None
        ranks.positions = {0: at(step, Phase.REDUCE, clock), 1: at(step, Phase.DATA, clock)}


def test_the_sentence_that_names_ranks(clock):
    positions = {0: at(6, Phase.REDUCE, clock), 1: at(6, Phase.DATA, clock), 2: at(6, Phase.DATA, clock)}
    clock.now += 41
    hosts = {0: "a", 1: "b", 2: "c"}
    hang = Hang.of(positions, 41.0)
    assert hang.describe(hosts) == "ranks 1 on b, 2 on c have been in data for 41 s; the other waits in reduce"
    positions[2] = positions[1] = positions[0]
    assert Hang.of(positions, 41.0).describe(hosts).startswith("all ranks wait in reduce, for 41 s: ")
    assert Hang.of(positions, 41.0, suspects=[2]).late == (2,)


def test_a_position_is_read_while_the_rank_does_nothing():
    memory = bytearray(2 * RankProgress.SIZE)
    progress = RankProgress(memory, RankProgress.SIZE)
    progress.complete_step(7)
    with progress.during(Phase.EVALUATION):
        with progress.during(Phase.REDUCE):
            assert RankProgress.decode(memory, RankProgress.SIZE).phase is Phase.REDUCE
        position = RankProgress.decode(memory, RankProgress.SIZE)
        assert (position.completed_steps, position.phase) == (7, Phase.EVALUATION)
        assert 0 <= time.monotonic_ns() - position.since < 1e9


def test_the_line_of_the_jobs_own_code_is_found_in_stacks():
    import torch

    collective = f"{Path(torch.__file__).parent}/distributed/distributed_c10d.py"
    wrapper = f"{Path(torch.__file__).parent}/distributed/c10d_logger.py"
    text = f"""Thread 0x1 (most recent call first):
  File "{threading.__file__}", line 1 in wait

Current thread 0x2 (most recent call first):
  File "{collective}", line 3 in all_reduce
  File "{wrapper}", line 83 in wrapper
  File "/home/me/train.py", line 31 in forward
  File "/x/distrib/train/context.py", line 9 in run_rank
"""
    assert describe_main_thread(text) == "train.py:31 in forward, which waits in the collective all_reduce"
    assert describe_main_thread("") is None
