"""`from distrib import Job, run`: the same as the command, and a guest that leaves its host as it was."""

import json

import pytest

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
{before}
import json, os, signal, sys, threading

def surroundings():
    handlers = {{number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    torch = sys.modules.get("torch")
    return {{
        **{{f"${{name}}": value for name, value in os.environ.items()}},
        "handlers": str(handlers),
        "blocked": str(blocked),
        "threads": [thread.name for thread in threading.enumerate()],
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "folder": os.getcwd(),
        "torch threads": torch and torch.get_num_threads(),
    }}

signal.signal(signal.SIGTERM, lambda *_: None)
before = surroundings()

from distrib import Job, run

results = [run(Job.load("job.yaml", ["storage=runs"]), workers=2) for _ in range({times})]
after = surroundings()
print(json.dumps({{
    "folders": [str(result.folder) for result in results],
    "status": results[-1].status,
    "metrics": results[-1].metrics,
    "changes": {{name: [before.get(name), after.get(name)]
                for name in {{*before, *after}} if before.get(name) != after.get(name)}},
    "torch threads": after["torch threads"],
}}))
"""


@pytest.fixture(scope="module")
def trained(shared_workplace):
    """The bytes of the weights that the command trains."""
    launch = shared_workplace.start("--workers", "2")
    assert launch.wait(60) == 0
    return launch.run


def call(workplace, before="", times=1):
    launch = workplace.start_python(PROGRAM.format(before=before, times=times))
    assert launch.wait(100) == 0, launch.stderr
    assert launch.stderr == ""
    launch.wait_until_gone()
    workplace.assert_clean()
    return json.loads(launch.stdout)


def assert_same_as_the_command(workplace, trained, answer):
    assert answer["status"] == "finished"
    assert answer["metrics"] == trained.metrics
    for folder in answer["folders"]:
        assert folder.startswith(f"{workplace.runs}/small-")
        weights = workplace.runs / folder / "model.safetensors"
        assert weights.read_bytes() == trained.weights.read_bytes()


def test_in_a_fresh_interpreter(workplace, trained):
    """Ranks are forked the first time; torch being used, they are new interpreters the second time."""
    answer = call(workplace, times=2)
    assert len(set(answer["folders"])) == 2
    assert_same_as_the_command(workplace, trained, answer)
    # None of them at first, as torch was not imported yet.
    assert answer["changes"].pop("torch threads") == [None, answer["torch threads"]]
    assert answer["changes"] == {}


def test_in_an_interpreter_that_has_used_torch(workplace, trained):
    """Its ranks cannot be forked, and it has no `if __name__ == "__main__"`."""
    answer = call(workplace, "import torch; torch.set_num_threads(2); torch.randn(500, 500) @ torch.randn(500, 500)")
    assert_same_as_the_command(workplace, trained, answer)
    assert answer["changes"] == {}
    assert answer["torch threads"] == 2
