"""Scripts on the command line."""

import pytest

from distrib.cli.options import load_job
from distrib.cli.script import load_runnable, run_arguments
from distrib.errors import JobError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").touch()
    (tmp_path / "job.yaml").write_text("name: example\nscript: {file: code/train.py, args: [a]}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "module", "arguments", "expected"),
    [
        ("code/train.py", None, ["--lr", "0.1"], (["code/train.py"], ["--", "--lr", "0.1"])),
        ("FOLDER/code/train.py", None, [], (["code/train.py"], [])),
        ("a", "code.train", ["--b"], (["-m", "code.train"], ["--", "a", "--b"])),
        ("job.yaml", None, [], (["job.yaml"], [])),
    ],
)
def test_a_copy_of_the_working_directory_runs_the_same(folder, name, module, arguments, expected):
    job = load_runnable(name.replace("FOLDER", str(folder)), module, arguments, [])
    assert run_arguments(job) == expected
    what, own = expected
    (first, *rest) = own[1:] or [None]
    again = load_runnable(*((first, what[1], rest) if module else (what[0], None, own[1:])), [])
    assert again.spec.script.args == job.spec.script.args


def test_arguments_need_a_script(folder):
    with pytest.raises(JobError, match=r"no script before the arguments '--lr 0.1'; name it first: SCRIPT -- --lr 0.1"):
        load_runnable("--lr", None, ["0.1"], [])


@pytest.mark.parametrize("name", ["code/train.py", "job.yaml"])
def test_commands_that_need_steps_refuse_scripts(folder, name):
    with pytest.raises(JobError, match=f"{name}: a script, which only `distrib run` and `distrib submit` take"):
        load_job(name, None, workers=None, device=None, runs_dir=None)


def test_a_job_takes_no_arguments(folder):
    with pytest.raises(JobError, match=r"job\.yaml is no script, so it takes no arguments; give '--lr'"):
        load_runnable("job.yaml", None, ["--lr"], [])
