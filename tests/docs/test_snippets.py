"""Every command, job and program in README.md and docs/ is valid; cheap ones run."""

import json
import re
import subprocess
import sys

import pytest
import typer
import yaml
from typer.testing import CliRunner

from cluster.lab.cli import app as lab
from distrib.cli.main import app
from distrib.job.script import load_any_job
from tests.support.doc_snippets import PAGES, REPOSITORY, blocks, commands

SHELL = {
    "accelerate",
    "torchrun",
    "cd",
    "curl",
    "docker",
    "git",
    "kubectl",
    "mkdir",
    "pip",
    "python3",
    "ray",
    "sbatch",
    "set",
    "source",
    "export",
    ".",
}
FOUND = commands()
JOBS = blocks("yaml")
PROGRAMS = blocks("python")


def check_arguments(program, verb, arguments):
    """Parses the arguments of a command as typer would, without running it."""
    command = typer.main.get_command(program)
    if verb.startswith("--"):
        assert verb in {name for option in command.params for name in option.opts}
        return
    command = command.commands[verb]
    if arguments:  # a name alone is mentioned, not shown as a command to type
        command.make_context(verb, ["9000" if argument in ("PORT", "N") else argument for argument in arguments])


@pytest.mark.parametrize(("where", "words"), FOUND, ids=[f"{where} {' '.join(words)}" for where, words in FOUND])
def test_a_command_is_valid(where, words):
    if words[0] == "distrib":
        check_arguments(app, words[1], words[2:])
    elif words[:3] == ["python", "-m", "cluster.lab"]:
        check_arguments(lab, words[3], words[4:])
        if words[3] == "exec" and "distrib" in words:
            check_arguments(app, words[words.index("distrib") + 1], words[words.index("distrib") + 2 :])
    elif words[:3] == ["python", "-m", "pytest"]:
        assert (REPOSITORY / words[3]).exists()
    elif words[:3] == ["python", "-m", "tests.bench"]:
        assert (REPOSITORY / "tests" / "bench" / "families" / f"{words[4]}.py").exists()
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (REPOSITORY / "Makefile").read_text()
    else:
        assert words[0] in SHELL
        if words[:2] == ["ray", "job"] and "distrib" in words:
            check_arguments(app, words[words.index("distrib") + 1], words[words.index("distrib") + 2 :])


@pytest.mark.parametrize("snippet", JOBS, ids=str)
def test_a_job_or_a_part_of_one_is_valid(snippet, tmp_path):
    written = yaml.safe_load(snippet.text)
    base = {} if "name" in written else yaml.safe_load((REPOSITORY / "jobs" / "digits.yaml").read_text())
    for field, excluded in (("step", ["loss"]), ("optimizers", ["optimizer", "schedule"])):
        base = {name: value for name, value in base.items() if field not in written or name not in excluded}
    (tmp_path / "job.yaml").write_text(json.dumps({**base, **written}))
    load_any_job(tmp_path / "job.yaml")


@pytest.mark.parametrize("snippet", PROGRAMS, ids=str)
def test_a_program_is_valid(snippet):
    code = compile(snippet.text, str(snippet), "exec")
    if "distrib.session(" in snippet.text:  # a script, whose process group lasts as long as its process
        subprocess.run([sys.executable, "-c", snippet.text], check=True, timeout=100)
    elif "cluster.lab" not in snippet.text and "result = run(" not in snippet.text:
        exec(code, {"__name__": "snippet"})


def test_the_example_of_the_readme_is_the_job_in_the_repository():
    shown = next(snippet.text for snippet in JOBS if snippet.page.name == "README.md")
    assert yaml.safe_load(shown) == {
        key: value
        for key, value in yaml.safe_load((REPOSITORY / "jobs" / "digits.yaml").read_text()).items()
        if key in yaml.safe_load(shown)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("reference/"):  # those pages are generated
            assert (page.parent / link).exists(), link


def test_the_readme_fits_a_few_screens():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) < 150


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The folder that the tutorial makes, and a function that runs one of its commands there."""
    folder = tmp_path_factory.mktemp("spirals")
    for language, name in (("python", "spirals.py"), ("yaml", "spirals.yaml")):
        text = next(snippet.text for snippet in blocks(language) if snippet.page.name == "tutorial.md")
        (folder / name).write_text(text)
    (folder / "wrong.yaml").write_text((folder / "spirals.yaml").read_text().replace("batch_size", "batchsize"))

    def run(*arguments):
        command = [sys.executable, "-m", "distrib", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)

    return run


def test_the_tutorials_plan(tutorial):
    done = tutorial("plan", "spirals.yaml")
    assert done.returncode == 0, done.stderr
    assert "800 = 20 epochs of 40" in done.stdout


@pytest.mark.parametrize("arguments", ["run spirals.yaml --set optimizer.args.lrr=0.1", "run wrong.yaml"])
def test_the_tutorials_mistakes_are_reported_as_shown(tutorial, arguments):
    page = (REPOSITORY / "docs" / "tutorial.md").read_text()
    done = tutorial(*arguments.split())
    assert done.returncode == 2
    for line in done.stderr.splitlines():
        assert line[:100] in page, line


def test_the_schema_of_the_jobs_page():
    done = CliRunner().invoke(app, ["schema"])
    assert json.loads(done.output)["title"] == "distrib job spec"


def test_a_rendered_job():
    command = ["submit", "jobs/digits.yaml", "--render", "slurm", "--runs-dir", "/shared/runs"]
    done = subprocess.run(
        [sys.executable, "-m", "distrib", *command],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash")
