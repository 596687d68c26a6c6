"""Scripts on the command line."""

import pytest

from distrib.cli.options import load_job
from distrib.cli.script import load_runnable, run_arguments
from distrib.errors import JobError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").touch()
    (tmp_path / "code" / "__init__.py").touch()
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


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("code.trian", "there is no module code.trian: nothing in code has that name"),
        ("code", "code is a package without a __main__.py"),
    ],
)
def test_a_module_that_cannot_be_run_is_refused(folder, module, problem):
    with pytest.raises(JobError, match=problem):
        load_runnable(None, module, [], [])


@pytest.mark.parametrize("name", ["code/train.py", "job.yaml"])
def test_fields_of_a_training_job_are_not_suggested_for_a_script(folder, name):
    with pytest.raises(JobError, match=r"unknown field 'train.epochs'; a script has no 'train' here: it trains as its"):
        load_runnable(name, None, [], ["train.epochs=3"])


def test_fields_of_a_script_can_be_set(folder):
    job = load_runnable("job.yaml", None, [], ["script.args=[b]", "resources.workers=3"])
    assert (job.spec.script.args, job.spec.resources.workers) == (["b"], 3)
    with pytest.raises(JobError, match=r"unknown field 'script.arg'; did you mean 'script.args'"):
        load_runnable("job.yaml", None, [], ["script.arg=[b]"])
