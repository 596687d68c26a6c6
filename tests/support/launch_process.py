"""The command `distrib` as a process, with everything that it starts: watched, timed, and ended with the test."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from distrib.runs.run import Run

REPOSITORY = Path(__file__).parents[2]
MARK = "DISTRIB_TEST_LAUNCH"
"""Environment variable that marks the processes of one launch."""

GONE_SECONDS = 20
"""What a busy machine may need to end processes that are killed; what is left behind by a fault stays for longer."""

JOB = """\
name: small
model: launch_jobs:Mlp
data:
  train: {target: launch_jobs:Samples, args: {count: 22}}
  batch_size: 8
loss: torch.nn:CrossEntropyLoss
optimizer: {target: torch.optim:AdamW, args: {lr: 0.01}}
train: {epochs: 3, log_every: 2}
resources: {workers: 2, device: cpu}
"""

EVALUATION = """\
  eval: {target: launch_jobs:Samples, args: {count: 10, seed: 2}}
metrics: {accuracy: {target: torchmetrics.classification:MulticlassAccuracy, args: {num_classes: 3, average: micro}}}
"""


SHARED_MEMORY = Path("/dev/shm")
MATPLOTLIB_FOLDER = Path(__file__).parents[2] / ".pytest_cache" / "matplotlib"
"""Where matplotlib, which torchmetrics imports where it is installed, keeps the fonts that it has found."""


class Workplace:
    """A folder with a job and its module, an empty home, a folder of runs and one for temporary files.

    Args:
        folder: An empty one.
        server: Starts the command quickly, in a fork; None starts an interpreter for each, as users do.
    """

    def __init__(self, folder, server=None):
        self.folder = folder
        self.server = server
        self.home, self.runs, self.notes = folder / "home", folder / "runs", folder / "notes"
        self.home.mkdir()
        self.job = self.write("job.yaml", JOB)
        # Short, as the names of sockets in it have a limit of 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="d-"))
        shutil.copy(Path(__file__).with_name("launch_jobs.py"), folder)
        self._launches = []

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *arguments, job="job.yaml", env=None):
        """Starts `distrib run JOB` with `arguments`."""
        command = [sys.executable, "-m", "distrib", "run", job, "--runs-dir", self.runs, *arguments]
        return self.start_command(list(map(str, command)), env)

    def start_python(self, code, env=None):
        """Starts a Python program."""
        return self.start_command([sys.executable, self.write("program.py", code)], env)

    def start_command(self, command, env=None):
        places = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "MPLCONFIGDIR": str(MATPLOTLIB_FOLDER)}
        launch = Launch(self, command, {**places, **(env or {})})
        self._launches.append(launch)
        return launch

    def noted(self, word):
        """The notes that begin with `word`: (what else was noted, Unix seconds)."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        words = [line.rsplit(" ", 2) for line in lines]
        return [(int(value), float(seconds)) for first, value, seconds in words if first == word]

    def assert_clean(self):
        """Nothing was written to the home folder, and no temporary file is left but torch's own empty folder."""
        left = [path.name for folder in (self.home, self.temporary) for path in folder.rglob("*")]
        kept = [name for name in left if not name.startswith("torchinductor_")]
        assert kept == [], kept

    def close(self):
        for launch in self._launches:
            launch.end()
        shutil.rmtree(self.temporary, ignore_errors=True)


class Launch:
    """One process and its descendants.

    Attributes:
        pid: The process itself.
        started: Unix seconds.
        ended: Unix seconds at which it was found ended.
    """

    def __init__(self, workplace, command, environment):
        self._workplace = workplace
        self._mark = secrets.token_hex(8)
        self._output = workplace.folder / f"stdout-{self._mark}"
        self._errors = workplace.folder / f"stderr-{self._mark}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DISTRIB_", "RAY_"))}
        self.started = time.time()
        self.ended = None
        environment = {**inherited, "PYTHONPATH": str(REPOSITORY), **environment, MARK: self._mark}
        if workplace.server is not None and command[:3] == [sys.executable, "-m", "distrib"]:
            self._output.touch()
            self._errors.touch()
            self._process = workplace.server.start(
                command[3:], workplace.folder, self._output, self._errors, environment
            )
        else:
            self._process = self._start_interpreter(command, environment)
        self.pid = self._process.pid
        self._seen = {}

    def _start_interpreter(self, command, environment):
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            return subprocess.Popen(
                command,
                cwd=self._workplace.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    @property
    def stdout(self):
        return self._output.read_text()

    @property
    def stderr(self):
        return self._errors.read_text()

    @property
    def answer(self):
        """The one object of `--json`."""
        return json.loads(self.stdout)

    @property
    def run(self):
        """The run in the workplace's folder of runs, which must be the only one."""
        (folder,) = self._workplace.runs.iterdir()
        return Run(folder)

    def wait(self, timeout):
        """Waits for the end; returns the exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self.stdout}{self.stderr}") from None
        self.ended = time.time()
        return code

    def wait_until(self, condition, timeout=120.0):
        """Waits until `condition()` is true and returns its value, as long as the process lives."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {self.stdout}{self.stderr}")
            time.sleep(0.02)
        return value

    def wait_for_step(self, step, timeout=120.0):
        """Waits until the run has logged this step."""

        def has_come():
            runs = list(self._workplace.runs.glob("*/metrics.jsonl"))
            events = Run(runs[0].parent).events() if runs else []
            return any(event["event"] == "train" and event["step"] >= step for event in events)

        self.wait_until(has_come, timeout)

    def send(self, number, *, to_group=False):
        """Sends a signal, as Ctrl-C does to the whole process group if wanted."""
        self.processes()
        (os.killpg if to_group else os.kill)(self.pid, number)

    def processes(self):
        """All that live of it: by its mark, its session or descent from those seen before."""
        with contextlib.suppress(psutil.Error):
            self._note(psutil.Process(self.pid))
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.pid or process.environ().get(MARK) == self._mark:
                    self._note(process)
        for process in list(self._seen.values()):
            with contextlib.suppress(psutil.Error):
                for child in process.children(recursive=True):
                    self._note(child)
        return [process for process in self._seen.values() if _is_alive(process)]

    def wait_until_gone(self, timeout=GONE_SECONDS, but=()):
        """Waits until no process of it lives, but those of these names."""
        started = time.monotonic()
        while left := [process for process in self.processes() if not _describe(process).startswith(tuple(but))]:
            if time.monotonic() - started > timeout:
                raise AssertionError(f"left after {timeout} s: {[_describe(process) for process in left]}")
            self._process.poll()
            time.sleep(0.05)
        assert self.shared_memory() == []

    def shared_memory(self):
        """The names of segments in shared memory that carry the number of a process of it, as torch's do."""
        found = []
        for path in SHARED_MEMORY.glob("*_*"):
            with contextlib.suppress(OSError):
                is_new = path.stat().st_ctime >= self.started
                if is_new and any(f"_{pid}_" in f"{path.name}_" for pid, _ in self._seen):
                    found.append(path.name)
        return found

    def end(self):
        """Kills whatever is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait(60)

    def _note(self, process):
        self._seen[process.pid, process.create_time()] = process


def _hear_interrupts():
    """Undoes what a shell does to programs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _describe(process):
    try:
        return " ".join(process.cmdline()).strip()[:150]
    except psutil.Error:
        return f"process {process.pid}"
