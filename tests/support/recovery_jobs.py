"""What the jobs of tests/recovery train: a small network whose processes can be killed at chosen moments.

A strike is a file in the folder `strikes` beside this module: which rank, at which moment, for the how manieth time in
its attempt (`time`: how many milliseconds after its first step has begun), and whom it hits. Only the first file, by
name, is armed; whoever strikes removes it. What happens on disk is heard of through Python's audit events, so that the
moments are those of the run folder's format and of nothing else.

Of the victims, `outlived` is the launcher, whose death the ranks survive; the rank that strikes stands still until
there is a file `released`. `none` stands still and harms nobody; `disk` is full.
"""

import ctypes
import errno
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from exact_jobs import NUM_CLASSES, NUM_FEATURES, Mlp, Points
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

STRIKES = Path(__file__).with_name("strikes")
RELEASED = Path(__file__).with_name("released")
GATES = Path(__file__).with_name("gates")
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

ON_RENAME = {
    "COMMITTED": "commit",
    "manifest.json": "manifest",
    "state.json": "state",
    ".metadata": "metadata",
    "best.safetensors": "best",
    "model.safetensors": "final",
}
ON_REMOVAL = {"COMMITTED": "remove", "state.json": "removing"}


class Fragile(nn.Module):
    """Has dropout, takes its time, and is where strikes happen."""

    def __init__(self, hidden=8, dropout=0.1, seconds=0.002):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, NUM_CLASSES)
        ).double()
        self._seconds = seconds
        self._striker = Striker()
        self._striker.note("start")

    def forward(self, inputs):
        self._striker.note("forward" if self.training else "evaluate")
        if self.training:
            time.sleep(self._seconds)
        outputs = self.layers(inputs)
        if outputs.requires_grad:
            outputs.register_hook(lambda _: self._striker.note("backward"))
        return outputs


class FragileNorm(Fragile):
    """The same with buffers."""

    def __init__(self, **args):
        super().__init__(**args)
        self.layers = nn.Sequential(nn.BatchNorm1d(NUM_FEATURES).double(), *self.layers)


class FragileHalf(Fragile):
    """The same in single precision, which fp16's autocast wants."""

    def __init__(self, **args):
        super().__init__(**args)
        self.layers = self.layers.float()


class Gates:
    """A callback that holds rank 0 at the end of a step, or of the training, while a file `gates/STEP` or `gates/end`
    exists; a file `reached-…` beside it says that the rank has come there.
    """

    def on_step(self, session, output):
        self._hold(session, session.completed_steps)

    def on_end(self, session):
        self._hold(session, "end")

    def _hold(self, session, name):
        gate = GATES / str(name)
        if session.rank == 0 and gate.exists():
            gate.with_name(f"reached-{name}").touch()
            while gate.exists():
                time.sleep(0.002)


class One(Fragile):
    """A single parameter: most ranks have nothing to save."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Linear(NUM_FEATURES, NUM_CLASSES, bias=False).double()


def struck(name, **args):
    """A model of session_jobs or exact_jobs whose ranks can be killed at moments of their optimizers and files."""
    import exact_jobs
    import session_jobs

    Striker()  # kept by its hooks
    return getattr(session_jobs if hasattr(session_jobs, name) else exact_jobs, name)(**args)


class Suicidal(Mlp):
    """Rank 0 kills itself in the third forward pass of every attempt, or raises there."""

    def __init__(self, how, notes):
        super().__init__()
        self._how, self._notes, self._num_calls = how, notes, 0
        if dist.get_rank() == 0:
            with open(notes, "a") as file:
                file.write("built\n")

    def forward(self, inputs):
        self._num_calls += 1
        if self._num_calls == 3 and dist.get_rank() == 0:
            if self._how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no such label: 7")
        return super().forward(inputs)


class Augmented(Points):
    """Points that are moved at random, and loaded by whoever loads."""

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        noise = 0.1 * torch.randn(inputs.shape, dtype=inputs.dtype) + 0.1 * random.gauss()
        return inputs + noise.to(inputs.dtype), target


class Striker:
    """A rank's ear for its own moments."""

    def __init__(self):
        self._strike, self._token = None, None
        if not STRIKES.is_dir() or not dist.is_initialized():
            return
        tokens = sorted(STRIKES.iterdir())
        if not tokens:
            return
        self._token = tokens[0]
        self._strike = json.loads(self._token.read_text())
        self._victim = self._strike["victim"]
        if self._strike["moment"] == "read" and not any(STRIKES.parent.glob("runs/*/checkpoints/step-*/COMMITTED")):
            self._strike["moment"] = "updated"  # earlier strikes have let no checkpoint be committed
        self._pid, self._left, self._lock = os.getpid(), self._strike["nth"], threading.Lock()
        if self._victim == "outlived":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
        if dist.get_rank() != self._strike["rank"] % dist.get_world_size():
            return
        if self._strike["moment"] == "stage":
            self._hear_staging()
        register_optimizer_step_pre_hook(lambda *_: self.note("update"))
        register_optimizer_step_post_hook(lambda *_: self.note("updated"))
        sys.addaudithook(self._hear)

    def note(self, moment):
        """Something happens now; strikes if this is the moment, or sets the clock if it is the start of one."""
        if moment == "forward" and self._strike is not None and self._strike["moment"] == "time":
            moment = "time"
        if self._strike is None or moment != self._strike["moment"] or os.getpid() != self._pid:
            return
        if dist.get_rank() != self._strike["rank"] % dist.get_world_size():
            return
        if moment == "time":
            threading.Timer(self._strike["nth"] / 1000, self._hit).start()
            self._strike = None
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._hit()

    def _hit(self):
        self._token.unlink()
        self._kill(self._victim)

    def _kill(self, victim):
        launcher = os.getppid()
        if victim == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if victim in ("launcher", "outlived"):
            os.kill(launcher, signal.SIGKILL)
        if victim == "launcher":
            time.sleep(60)
        if victim in ("outlived", "none"):
            while not RELEASED.exists():
                time.sleep(0.01)
            return
        if victim == "all":
            for rank in children_of(launcher):
                if rank != os.getpid():
                    os.kill(rank, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def _hear_staging(self):
        """Notes the moments just before and after a copy is made."""
        from distrib.train.checkpoint.staging import StagingBuffers

        copy = StagingBuffers.copy

        def noted(*arguments):
            self.note("stage")
            staged = copy(*arguments)
            self.note("stage")
            return staged

        StagingBuffers.copy = noted

    def _hear(self, event, arguments):
        moment = None
        if event == "os.rename":
            name = os.path.basename(os.fspath(arguments[1]))
            moment = "part" if name.startswith("part-") else ON_RENAME.get(name)
        elif event == "os.remove":
            name = os.path.basename(os.fsdecode(arguments[0]))
            moment = "tidy" if name.startswith("part-") else ON_REMOVAL.get(name)
        elif event == "os.mkdir":
            moment = "folder" if "step-" in os.fspath(arguments[0]) else None
        elif event == "open" and isinstance(arguments[0], str | os.PathLike):
            name, is_written = os.path.basename(os.fspath(arguments[0])), arguments[2] & os.O_ACCMODE != os.O_RDONLY
            if name.endswith(".distcp"):
                moment = "write" if is_written else "read"
        if moment is not None:
            self.note(moment)


def children_of(pid):
    """The direct children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def warm_up_then_decay(optimizer, num_steps):
    """Schedules in sequence, one of which has a function of the user's own."""
    schedulers = torch.optim.lr_scheduler
    warm_up = schedulers.LambdaLR(optimizer, lambda step: (1 + step) / 10)
    decay = schedulers.CosineAnnealingWarmRestarts(optimizer, T_0=num_steps // 4)
    return schedulers.SequentialLR(optimizer, [warm_up, decay], milestones=[num_steps // 3])


class FragileTwins(Fragile):
    """What checkpoints may forget.

    Args:
        kinds: Of `layout` (weights in channels-last format), `teacher` (follows by a moving average), `table` (a buffer
            made in forward) and `extra` (extra state).
        args: For `Fragile`.
    """

    def __init__(self, kinds=("layout", "teacher", "table", "extra"), **args):
        super().__init__(**args)
        self._kinds = kinds
        if "layout" in kinds:
            self.images = nn.Conv2d(1, 4, 3, padding=1).double().to(memory_format=torch.channels_last)
            self.mixed = nn.Conv2d(4, 4, 3, padding=1).double().to(memory_format=torch.channels_last)
        if "teacher" in kinds:
            self.teacher = nn.Linear(NUM_FEATURES, NUM_CLASSES).double().requires_grad_(False)
            self.student = nn.Linear(NUM_FEATURES, NUM_CLASSES).double()
        if "table" in kinds:
            self.register_buffer("table", None, persistent=False)
        self.seen = {"largest": 1.0, "batches": 0, "mean": torch.zeros(NUM_FEATURES, dtype=torch.float64)}

    def get_extra_state(self):
        return self.seen if "extra" in self._kinds else {}

    def set_extra_state(self, state):
        if "extra" in self._kinds:
            self.seen = state

    def forward(self, inputs):
        if "table" in self._kinds:
            inputs = self._scaled_by_table(inputs)
        if "layout" in self._kinds:
            images = inputs.view(-1, 1, 2, 3).to(memory_format=torch.channels_last)
            inputs = inputs + self.mixed(torch.tanh(self.images(images))).mean(1).flatten(1)
        if "extra" in self._kinds:
            inputs = self._scaled_by_seen(inputs)
        outputs = super().forward(inputs)
        return outputs + self._difference(inputs) if "teacher" in self._kinds else outputs

    def _scaled_by_table(self, inputs):
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, NUM_FEATURES, dtype=torch.float64)
        return inputs * self.table

    def _scaled_by_seen(self, inputs):
        if self.training:
            self.seen["batches"] += 1
            self.seen["largest"] = max(self.seen["largest"], 1 + 0.01 * self.seen["batches"])
            self.seen["mean"] = self.seen["mean"].lerp(torch.ones_like(self.seen["mean"]), 0.1)
        return (inputs - self.seen["mean"]) / self.seen["largest"]

    def _difference(self, inputs):
        if self.training:
            with torch.no_grad():
                for theirs, ours in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    theirs.lerp_(ours, 0.1)
        return 0.1 * (self.student(inputs) - self.teacher(inputs))


class Proxies(nn.Module):
    """A loss with a learnt point for each class and an average of what it has seen."""

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.eye(NUM_CLASSES, dtype=torch.float64))
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))

    def forward(self, outputs, targets):
        if self.training:
            self.average.lerp_(torch.ones_like(self.average), 0.01)
        distances = torch.cdist(outputs, self.points)
        return nn.functional.cross_entropy(-distances * (1 + self.average), targets)


class Average:
    """A moving average of the model's outputs, kept in checkpoints."""

    def __init__(self):
        self.value, self.num_steps = torch.zeros(NUM_CLASSES, dtype=torch.float64), 0

    def state_dict(self):
        return {"value": self.value, "num_steps": self.num_steps}

    def load_state_dict(self, state):
        self.value, self.num_steps = state["value"].clone(), state["num_steps"]


class Seen:
    """What a rank has seen, which is another on each."""

    def __init__(self):
        self.total = 0.0

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def driven(model, batch, session):
    """Two updates along gradients of all ranks' outputs; what is kept decides the next ones."""
    average, seen = session.keep("average", Average()), session.keep("seen", Seen(), per_rank=True)
    inputs, targets = batch
    outputs = model(inputs)
    rows, first = session.gather(outputs)
    spread = (outputs @ rows.detach().T).square().mean() + (outputs - rows.mean(0)).square().mean()
    loss = nn.functional.cross_entropy(outputs + average.value + seen.total, targets) + 0.01 * spread
    if session.is_training:
        session.minimize(loss, of=model.layers[0])
        again = nn.functional.cross_entropy(model.layers(inputs), targets)
        session.minimize(again, of=model.layers[-1], weight=float(len(inputs)))
        average.value = 0.9 * average.value + 0.1 * session.sum(outputs.detach().mean(0))
        average.num_steps += 1
        seen.total += 0.01 * float(outputs.detach().sum())
        session.log(count=float(average.num_steps), first=float(first))
    return {"loss": loss, "outputs": outputs, "targets": targets}
