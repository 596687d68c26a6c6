"""What scripts do wrongly with their session is reported in a line; alone, a script has a session of one rank."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

pytestmark = pytest.mark.timeout(100)

HEAD = """import torch
from torch import nn
from torch.utils.data import TensorDataset
import distrib
torch.manual_seed(0)
dataset = TensorDataset(torch.randn(20, 3), torch.arange(20) % 2)
model = nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
LOOP = (
    HEAD
    + """session = distrib.session()
model, optimizer = session.setup(model, optimizer)
for inputs, targets in session.batches(dataset, batch_size=8, epochs=2):
    optimizer.zero_grad()
    session.backward(nn.functional.cross_entropy(model(inputs), targets))
    session.update(optimizer)
"""
)
CASES = {
    "precision": ("distrib.session(precision='fp8')", "distrib.session: precision is one of fp32, bf16 and fp16"),
    "interval": ("distrib.session(checkpoint='often')", "distrib.session: checkpoint is an interval such as"),
    "twice": ("distrib.session()\ndistrib.session(seed=1)", "the script has a session with other arguments"),
    "no model": ("distrib.session().setup(3)", "session.setup: needs a torch.nn.Module, not a int"),
    "scheduler": (
        "distrib.session().setup(model, torch.optim.lr_scheduler.StepLR(optimizer, 1))",
        "session.setup: needs optimizers after the model, not a StepLR; keep a learning-rate scheduler",
    ),
    "foreign": (
        "distrib.session().setup(nn.Linear(3, 2), optimizer)",
        "session.setup: the optimizer has parameters that are not the model's",
    ),
    "not set up": ("distrib.session().update(optimizer)", "session.update: the optimizer was not set up"),
    "length": ("distrib.session().batches(dataset, batch_size=8)", "session.batches: give either epochs or steps"),
    "size": ("distrib.session().batches(dataset, batch_size=0, steps=1)", "batch_size is a whole number from 1, not 0"),
    "order": (
        "distrib.session().batches(dataset, batch_size=8, steps=1, order='random')",
        "session.batches: order is one of shuffle, sequential, a function order(dataset, epoch, seed), or the name",
    ),
    "own step": (
        "s = distrib.session()\ns.setup(model, optimizer)\nfor x, y in s.batches(dataset, batch_size=8, steps=1):\n"
        "    s.backward(model(x).mean(), weight=3)\n    optimizer.step()",
        "optimizer.step: call session.update(optimizer) instead, which divides the sums of weighted gradients",
    ),
    "own scaled step": (
        "s = distrib.session(precision='fp16')\ns.setup(model, optimizer)\n"
        "for x, y in s.batches(dataset, batch_size=8, steps=1):\n    s.backward(model(x).mean())\n    optimizer.step()",
        "optimizer.step: call session.update(optimizer) instead, which undoes the scaling of fp16",
    ),
    "no order": (
        "distrib.session().batches(dataset, batch_size=8, steps=1, order='nowhere:order')",
        "session.batches: there is no order nowhere:order: No module named 'nowhere'",
    ),
    "signature": (
        "distrib.session().batches(dataset, batch_size=8, steps=1, order=lambda dataset: [0])",
        "is called as order(dataset, epoch, seed); its signature is (dataset)",
    ),
    "range": (
        "distrib.session().batches(dataset, batch_size=8, steps=1, order=lambda *_: [3, 20])",
        "session.batches: order: __main__:<lambda> gave index 20 in epoch 0; the dataset has 20 samples, 0 to 19",
    ),
    "late range": (
        "for _ in distrib.session().batches(dataset, batch_size=8, epochs=2, order=lambda d, e, s: [3, 19 + e]):\n"
        "    pass",
        "session.batches: order: __main__:<lambda> gave index 20 in epoch 1",
    ),
    "stream": ("distrib.session().batches(iter([]), batch_size=8, steps=1)", "needs a map-style dataset"),
    "nested": (
        "s = distrib.session()\n"
        "for _ in s.batches(dataset, batch_size=8, steps=1):\n    s.batches(dataset, batch_size=8, steps=1)",
        "session.batches: called within another loop of session.batches; loops do not nest",
    ),
    "late": (
        "s = distrib.session()\nfor _ in s.batches(dataset, batch_size=8, steps=1):\n    s.setup(model)",
        "session.setup: a loop of session.batches has begun; set everything up before it",
    ),
    "due": ("distrib.session().is_due('1 epoch')", "session.is_due: needs a step of a loop"),
    "weights": (
        "s = distrib.session()\ns.setup(model, optimizer)\nfor x, y in s.batches(dataset, batch_size=8, steps=1):\n"
        "    s.backward(model(x).mean(), weight=3)\n    s.backward(model(x).mean())",
        "session.backward: give a weight in every call before an update, or in none",
    ),
}


def python(folder, text, **environment):
    (folder / "train.py").write_text(text)
    return subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_all_wrong_uses_in_one_process(tmp_path):
    """Each in a fresh state of the session, as forked children, since importing torch takes seconds."""
    program = (
        HEAD
        + "import os, traceback\n"
        + "CASES = "
        + repr({k: v[0] for k, v in CASES.items()})
        + """
import distrib.train.script.session
for name, text in CASES.items():
    if os.fork() == 0:
        try:
            exec(compile(text, "script.py", "exec"), dict(globals(), __name__="__main__"))
            print(name, "||", "nothing", flush=True)
        except Exception as error:
            print(name, "||", error, flush=True)
        os._exit(0)
    os.wait()
"""
    )
    finished = python(tmp_path, program)
    found = dict(line.split(" || ", 1) for line in finished.stdout.splitlines() if " || " in line)
    assert found.keys() == CASES.keys(), finished.stdout + finished.stderr
    for name, (_, message) in CASES.items():
        assert message in found[name], name
        assert found[name].startswith("script.py:"), found[name]


def test_a_script_runs_alone_with_plain_python(tmp_path):
    finished = python(tmp_path, LOOP + "print('steps', session.completed_steps, session.world_size)")
    assert (finished.returncode, finished.stdout) == (0, "steps 6 1\n"), finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_another_launcher_is_refused(tmp_path):
    finished = python(tmp_path, LOOP, WORLD_SIZE="4")
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].endswith(
        "train.py:9: distrib.session: another launcher has started 4 processes (WORLD_SIZE); start the script with "
        "`distrib run SCRIPT --workers 4`"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("len(str(session.rank + 8)) * 10", "the length of the dataset is 10 on rank 0 but 20 on rank 2"),
        ("20", "parameter weight is (2, 3) torch.float32 on rank 0 but (3, 3) torch.float32 on rank 2"),
    ],
)
@pytest.mark.long
def test_ranks_with_other_data_or_models_are_refused(tmp_path, command_server, text, message):
    classes = "2" if text != "20" else "len(str(session.rank + 8)) + 1"
    program = LOOP.replace("nn.Linear(3, 2)", f"nn.Linear(3, {classes})").replace(
        "torch.randn(20, 3)", f"torch.randn({text}, 3)"
    )
    program = (
        program.replace("torch.arange(20)", f"torch.arange({text})")
        .replace("session = distrib.session()\n", "")
        .replace("torch.manual_seed(0)\n", "session = distrib.session()\n")
    )
    (tmp_path / "train.py").write_text(program)
    finished = command_server.run(["run", "train.py", "--workers", "3", "--device", "cpu"], tmp_path, timeout=90)
    assert finished.returncode == 1
    assert message in finished.stdout + finished.stderr
