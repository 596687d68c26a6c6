"""Launches that are killed and started again, and what their runs must have in common with one that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from distrib.runs.events import read_events
from distrib.runs.layout import RunLayout
from distrib.runs.proc_stat import read_proc_stat
from distrib.runs.run import Run

SUPPORT = Path(__file__).parent
REPOSITORY = Path(__file__).parents[2]
TIMES = frozenset(
    {"time", "attempt", "step_seconds", "data_seconds", "samples_per_second", "eval_seconds"}
    | {"rank_step_seconds", "rank_data_seconds", "rank_compute_seconds", "rank_wait_seconds"}
)
RUN = "run"

NUM_SAMPLES, BATCH_SIZE, EVERY, EVAL_EVERY = 101, 8, 7, 20

JOB = {
    "name": "fragile",
    "model": "recovery_jobs:Fragile",
    "data": {
        "train": {"target": "recovery_jobs:Points", "args": {"num_samples": NUM_SAMPLES}},
        "eval": {"target": "recovery_jobs:Points", "args": {"num_samples": 30, "seed": 1}},
        "batch_size": BATCH_SIZE,
    },
    "loss": "torch.nn:CrossEntropyLoss",
    "metrics": {
        "accuracy": {
            "target": "torchmetrics.classification:MulticlassAccuracy",
            "args": {"num_classes": 3, "average": "micro"},
        }
    },
    "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.01}},
    "schedule": {"target": "torch.optim.lr_scheduler:CosineAnnealingLR", "args": {"T_max": "$steps"}},
    "train": {"steps": 150, "log_every": 1, "eval_every": f"{EVAL_EVERY} steps"},
    "ddp": {"bucket_mb": 0.0002},
    "resources": {"workers": 2, "device": "cpu"},
    "checkpoint": {"every": f"{EVERY} steps", "best": {"metric": "loss", "mode": "min"}},
    "failures": {"max_restarts": 50, "hang_timeout": 30},
}


def job(**changes):
    """The job with some sections changed: dicts are merged, anything else is replaced, None removes."""
    merged = {**JOB, **changes}
    for name, change in changes.items():
        if isinstance(change, dict) and isinstance(JOB.get(name), dict) and "target" not in change:
            merged[name] = {**JOB[name], **change}
        for part in [key for key, value in merged[name].items() if value is None] if isinstance(change, dict) else []:
            del merged[name][part]
    return {name: value for name, value in merged.items() if value is not None}


class Place:
    """A folder with a job, its modules and its runs.

    Args:
        server: Starts the launches; None starts each as a program of its own.
        folder: Must not exist.
        spec: The job.
    """

    def __init__(self, server, folder, spec):
        folder.mkdir(parents=True)
        self._server = server
        self.folder = folder
        self.strikes = folder / "strikes"
        self.strikes.mkdir()
        for module in ("exact_jobs.py", "recovery_jobs.py", "order_jobs.py", "session_jobs.py"):
            shutil.copy(SUPPORT / module, folder)
        self.write(spec)
        self.launches = []
        self.environment = {}

    @property
    def run(self):
        return Run(self.folder / "runs" / RUN)

    @property
    def layout(self):
        return RunLayout(self.folder / "runs" / RUN)

    def write(self, spec):
        """Replaces the job."""
        (self.folder / "job.yaml").write_text(json.dumps(spec))

    def start(self, *arguments, runs="runs", run_id=RUN):
        """Starts the command."""
        command = ["run", "job.yaml", "--runs-dir", str(runs), "--record-samples", "--run-id", run_id, *arguments]
        launch = Launch(self._server, self.folder, list(map(str, command)), len(self.launches), self.environment)
        self.launches.append(launch)
        return launch

    def finish(self, *arguments, timeout=60, **options):
        """Runs the command to a good end."""
        launch = self.start(*arguments, **options)
        assert launch.wait(timeout) == 0, launch.output
        return launch

    def stop_at(self, step, *arguments):
        """Runs the command until a checkpoint of `step` or later is committed, and stops it with SIGTERM."""
        launch = self.start(*arguments)
        launch.wait_until(lambda: any(number >= step for number in self.committed()))
        launch.send(signal.SIGTERM)
        assert launch.wait(60) == 130, launch.output
        return launch

    def committed(self):
        """The steps of the committed checkpoints."""
        names = [path.parent.name for path in self.layout.checkpoints.glob("step-*/COMMITTED")]
        return sorted(int(name.split("-")[1]) for name in names if name.count("-") == 2)

    def checkpoint(self, position=-1):
        """The folder of a committed checkpoint, by position in order of steps."""
        return sorted(path.parent for path in self.layout.checkpoints.glob("step-*/COMMITTED"))[position]

    def events(self, *kinds):
        events = read_events(self.layout.metrics_file)
        return [event for event in events if event["event"] in kinds] if kinds else events

    def warnings(self):
        return [event["message"] for event in self.events("warning")]

    def plan(self, strikes):
        """Puts the strikes down, to happen one after the other."""
        for number, strike in enumerate(strikes):
            (self.strikes / f"{number:03}.json").write_text(json.dumps(strike))

    def close_gates(self, *names):
        """Makes the job, which needs `recovery_jobs:Gates`, stand still at these steps, or at the `end`."""
        (self.folder / "gates").mkdir()
        for name in names:
            (self.folder / "gates" / str(name)).touch()

    def wait_at_gate(self, launch, name):
        """Waits until the launch stands still there."""
        launch.wait_until((self.folder / "gates" / f"reached-{name}").exists)

    def open_gate(self, name):
        (self.folder / "gates" / str(name)).unlink()

    def copy(self, folder):
        """Another place with the same job and the same runs."""
        shutil.copytree(self.folder, folder)
        other = object.__new__(Place)
        other._server, other.folder, other.strikes, other.launches = self._server, folder, folder / "strikes", []
        other.environment = self.environment
        return other

    def snapshot(self):
        """What the runs consist of: contents and times of all files."""
        files = [path for path in (self.folder / "runs").rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    def close(self):
        for launch in self.launches:
            launch.kill()


class Launch:
    """One process of the command."""

    def __init__(self, server, folder, arguments, number, environment=None):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})}
        self._output = folder / f"output-{number}"
        self._output.touch()
        if server is None:
            with self._output.open("ab") as file:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "distrib", *arguments],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
        else:
            self._process = server.start(
                arguments, folder, self._output, self._output, environment, any_compression=True
            )
        self.pid = self._process.pid

    @property
    def output(self):
        return self._output.read_text()

    def poll(self):
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout):
        """Waits for the end; returns the exit code."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self.output}") from None

    def wait_until(self, condition, timeout=120.0):
        """Waits until `condition()` is true, as long as the process lives; returns its value."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert self.poll() is None, f"ended too early: {self.output}"
            assert time.monotonic() < deadline, f"waited in vain: {self.output}"
            time.sleep(0.002)
        return value

    def ranks(self):
        """The processes of the ranks."""
        return children_of(self.pid)

    def send(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Ends it whatever it does; its ranks die with it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(60)


def children_of(pid):
    """The direct children of a process."""
    try:
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    stat = read_proc_stat(pid)
    return stat is not None and not stat.is_dead


def wait_until_dead(pids, timeout=20):
    """Waits until none of the processes lives."""
    started = time.monotonic()
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() - started < timeout, f"alive after {timeout} s: {left}"
        time.sleep(0.01)


EXACT = ("forward", "backward", "update", "updated", "evaluate", "stage", "folder", "write", "read", "metadata")
EXACT += ("state", "part", "manifest", "commit", "tidy", "remove", "removing", "best", "start", "time")
ONLY_RANK_0 = {"metadata", "state", "manifest", "commit", "tidy", "remove", "removing", "best"}
ONLY_WITH_CHECKPOINTS = {"read", "start"}
MANY = {"forward", "backward", "update", "updated"}
VICTIMS = ("self", "all", "launcher")


def choose_moments(seed, count):
    """Moments at random, for one run."""
    chosen = random.Random(seed)
    first = chosen.choice([name for name in EXACT if name not in ONLY_WITH_CHECKPOINTS])
    return [first, *(chosen.choice(EXACT) for _ in range(count - 1))]


def deal_moments(number, num_runs):
    """What falls to run `number`, from 0, where every moment there is falls to one of `num_runs` runs."""
    hand = list(EXACT)
    random.Random(0).shuffle(hand)
    return sorted(hand[number::num_runs], key=lambda name: name in ONLY_WITH_CHECKPOINTS)


def make_strikes(seed, moments):
    """Strikes at these moments, the rest at random; each attempt between two of them is short."""
    chosen = random.Random(seed)
    strikes = []
    for number, moment in enumerate(moments):
        rank = 0 if moment in ONLY_RANK_0 else chosen.randrange(4)
        nth = 1 + chosen.randrange(20 if moment in MANY else 2)
        if moment in ("start", "read", "best", "evaluate", "removing"):
            nth = 1
        if moment == "time":
            nth = 1 + chosen.randrange(60)
        if number == 0 and moment in MANY:
            nth += EVERY
        strikes.append({"moment": moment, "rank": rank, "nth": nth, "victim": chosen.choice(VICTIMS)})
    return strikes


def run_through(place, strikes, timeout=60):
    """Runs the job to its end through the strikes, starting its launcher again whenever that was killed."""
    place.plan(strikes)
    while (code := (launch := place.start()).wait(timeout)) == -signal.SIGKILL:
        pass
    assert code == 0, launch.output
    assert not list(place.strikes.iterdir()), f"strikes that never happened: {list(place.strikes.iterdir())}"


def newest_of_each_step(events):
    """Of each step the event of the highest attempt, without what clocks said."""
    newest = {}
    for event in events:
        if event["step"] not in newest or event["attempt"] >= newest[event["step"]]["attempt"]:
            newest[event["step"]] = event
    return {
        step: {name: value for name, value in event.items() if name not in TIMES}
        for step, event in sorted(newest.items())
    }


def samples_by_step(layout, world_size):
    """Of each step the ids by rank that its highest attempt recorded, and its epoch."""
    records = defaultdict(dict)
    for rank in range(world_size):
        for line in layout.samples_file(rank).read_text().splitlines():
            record = json.loads(line)
            records[record["step"]].setdefault(record["attempt"], {})[rank] = (record["epoch"], record["ids"])
    return {step: attempts[max(attempts)] for step, attempts in sorted(records.items())}


def assert_each_sample_once_per_epoch(layout, world_size, num_steps, batch_size=BATCH_SIZE):
    """Each id exactly once in each whole epoch, and no step missing."""
    steps = samples_by_step(layout, world_size)
    assert list(steps) == list(range(1, num_steps + 1))
    epochs = defaultdict(list)
    for ranks in steps.values():
        for epoch, ids in ranks.values():
            epochs[epoch] += ids
    steps_per_epoch = -(-NUM_SAMPLES // batch_size)
    for epoch, ids in epochs.items():
        if (epoch + 1) * steps_per_epoch <= num_steps:
            assert sorted(ids) == list(range(NUM_SAMPLES))
        else:
            assert len(ids) == len(set(ids))


def assert_same(place, reference, world_size, num_steps=150, batch_size=BATCH_SIZE, *, is_shuffled=True):
    """The run of `place` has come to what the uninterrupted run of `reference` came to, bit by bit."""
    assert reference.launches[-1].wait(60) == 0, reference.launches[-1].output
    ours, theirs = place.layout, reference.layout
    assert ours.weights_file.read_bytes() == theirs.weights_file.read_bytes()
    for name in ("best_file", "ema_file"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine.exists() == other.exists()
        if other.exists():
            assert mine.read_bytes() == other.read_bytes()
    for kind in ("train", "eval"):
        expected = newest_of_each_step(reference.events(kind))
        found = newest_of_each_step(place.events(kind))
        assert found == expected
        if kind == "train":
            assert list(found) == list(range(1, num_steps + 1))
    assert samples_by_step(ours, world_size) == samples_by_step(theirs, world_size)
    if is_shuffled:
        assert_each_sample_once_per_epoch(ours, world_size, num_steps, batch_size)
    assert (place.run.status, place.run.error) == ("finished", None)
    assert {path.name for path in ours.folder.rglob(".*")} <= {".metadata"}, "temporary files are left"
    assert place.committed()[-1] == num_steps
