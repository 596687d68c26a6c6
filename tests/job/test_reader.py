"""Reading a job: valid text is kept as written, mistakes are reported with their line."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distrib.errors import JobError
from distrib.job.reader import Job

REPOSITORY = Path(__file__).parents[2]
Load = Callable[..., Job]
Refusal = Callable[..., list[str]]


def test_a_job_knows_its_spec_place_and_text(job: Job, text: str, folder: Path) -> None:
    assert job.name == job.spec.name == "digits"
    assert job.path == folder / "job.yaml"
    assert job.folder == folder
    assert job.text == text
    assert job.spec.loss is not None
    assert job.spec.loss.target == "torch.nn:CrossEntropyLoss"
    assert job.spec.model.args == {"hidden": 256}


def test_lines_are_those_of_the_file(job: Job) -> None:
    assert job.lines["name"] == 2
    assert job.lines["model.args.hidden"] == 3
    assert job.lines["data.batch_size"] == 7
    assert job.lines["metrics.accuracy.args.num_classes"] == 10
    assert "train.seed" not in job.lines


def test_lines_are_those_of_an_editor(load: Load, text: str) -> None:
    assert load("storage: 'a\u2028\x85b'\n" + text).lines["name"] == 3
    assert load(text.replace("\n", "\r\n")).lines["data.batch_size"] == 7
    assert load("\ufeff" + text).lines["name"] == 2


def test_an_error_is_placed_at_its_field_or_the_nearest_around_it(job: Job) -> None:
    assert str(job.error("data.batch_size", "no")) == "job.yaml:7: data.batch_size: no"
    assert str(job.error("model.args.width", "no")) == "job.yaml:3: model.args.width: no"
    assert str(job.error("optimizer.args.lr", "no")) == "job.yaml:11: optimizer.args.lr: no"
    assert str(job.error("failures.grace", "no")) == "job.yaml:2: failures.grace: no"


def test_an_error_about_an_override_is_placed_there(job: Job) -> None:
    changed = job.override(["optimizer.args.lr=0.5"])
    assert str(changed.error("optimizer.args.lr", "no")) == "--set optimizer.args.lr=0.5: optimizer.args.lr: no"
    assert str(changed.error("optimizer.target", "no")) == "job.yaml:11: optimizer.target: no"
    assert "optimizer.args.lr" not in changed.lines


def test_a_job_can_be_pickled(job: Job) -> None:
    changed = job.override(["train.seed=3"])
    copy = pickle.loads(pickle.dumps(changed))
    assert copy == changed
    assert str(copy.error("train.epochs", "no")) == str(changed.error("train.epochs", "no"))


def test_an_error_can_be_pickled(job: Job) -> None:
    error = job.error("train.epochs", "no")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "job.yaml: is empty"),
        ("# only a comment\n", "job.yaml: is empty"),
        ("---\n", "job.yaml: is empty"),
        ("- name: digits\n", "job.yaml:1: expected a mapping with the fields name, model,"),
        ("\nhello\n", "job.yaml:2: expected a mapping"),
        ("name:digits\n", "job.yaml:1: expected a mapping"),
        ("name: a\nmodel: b:c\nname: d\n", "job.yaml:3: the key 'name' appears twice, on lines 1 and 3"),
        ("model:\n  args: {a: 1,\n  a: 2}\n", "job.yaml:3: the key 'a' appears twice, on lines 2 and 3"),
        ("model: {1: 2, 0x1: 3}\n", "job.yaml:1: the key '0x1' appears twice"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", "job.yaml:2: YAML tags ('!!python/"),
        ("a: !!str 1\n", "job.yaml:1: YAML tags ('!!str')"),
        ("a: ! 1\n", "job.yaml:1: YAML tags ('!')"),
        ("a:\n- !mine {}\n", "job.yaml:2: YAML tags ('!mine')"),
        ("a: &x [1]\nb: *x\n", "job.yaml:1: anchors ('&x')"),
        ("a: &x [*x]\n", "job.yaml:1: anchors ('&x')"),
        ("a: 1\nb: *x\n", "job.yaml:2: aliases ('*x')"),
        ("a: {<<: {b: 1}}\n", "job.yaml:1: merge keys"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2: a second document starts here"),
        ("a:\n\tb: 1\n", "job.yaml:2: line 2 has a tab; YAML needs spaces"),
        ("a:\n  b: 1\n\tc: 1\n", "job.yaml:3: line 3 has a tab; YAML needs spaces"),
        ("a:\n  b: 1\n  \tc: 1\n", "job.yaml:3: line 3 has a tab; YAML needs spaces"),
        ("a:\tb\n", "job.yaml:1: line 1 has a tab; YAML needs spaces"),
        ("a: 1\nb: {c: ${HOME}}\n", 'job.yaml:2: a ${NAME} inside { } or [ ] must be in quotes: write "${NAME}"'),
        ("a: [1,\n  x/${HOME}/y]\n", "job.yaml:2: a ${NAME} inside { } or [ ] must be in quotes"),
        ("a: {${HOME}: 1}\n", "job.yaml:1: a ${NAME} inside { } or [ ] must be in quotes"),
        ("a: b: c\n", "job.yaml:1: is not YAML: mapping values are not allowed here"),
        ("a: 1\nb: 'x\n", "job.yaml:3: is not YAML: while scanning a quoted scalar that starts on line 2,"),
        ("a: [1, 2\n", "is not YAML"),
        ("a: @x\n", "job.yaml:1: is not YAML: while scanning for the next token, found character '@'"),
        ("a: 1\nb: \x07\n", "job.yaml:2: has a character that YAML does not allow (U+0007)"),
        ("a:\n  ? [1]\n  : 2\n", "job.yaml:2: a key must be a single value"),
        ("a: 1\nb: " + "[" * 60, "job.yaml:2: is nested more than 50 levels deep"),
        ("[" * 100_000, "job.yaml:1: is nested more than 50 levels deep"),
        ("a: 1\nb: " + "9" * 5000 + "\n", "job.yaml:2: b: a number of 5000 digits is too long; put it in quotes"),
        ("%YAML 2.0\n---\na: 1\n", "job.yaml:1: is not YAML: found incompatible YAML document"),
    ],
)
def test_what_is_no_job_is_refused_with_its_line(refusal: Refusal, text: str, expected: str) -> None:
    (line,) = refusal(text)
    assert expected in line


def test_billion_laughs_are_refused_at_the_first(refusal: Refusal) -> None:
    laughs = "a: &a [x, x]\n" + "".join(f"{after}: &{after} [*{before}, *{before}]\n" for before, after in ["ab", "bc"])
    assert "anchors ('&a')" in refusal(laughs)[0]


def test_a_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    def refusal(path: str) -> str:
        with pytest.raises(JobError) as caught:
            Job.load(path)
        return str(caught.value)

    (folder / "digits.yaml").write_text("")
    assert refusal("digit.yaml") == "digit.yaml: no such file; did you mean 'digits.yaml'?"
    assert refusal("nowhere/job.yaml") == "nowhere/job.yaml: no such file"
    assert refusal(".") == ".: is a folder; name the YAML file in it"
    assert "digits.yaml/job.yaml: cannot be read: Not a directory" in refusal("digits.yaml/job.yaml")
    (folder / "latin.yaml").write_bytes(b"name: a\nmodel: \xe9\n")
    assert "latin.yaml:2: is not UTF-8" in refusal("latin.yaml")
    (folder / "weights.bin").write_bytes(bytes(2**20 + 1))
    assert "weights.bin: is larger than 1 MiB" in refusal("weights.bin")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_refused(folder: Path) -> None:
    (folder / "job.yaml").touch(mode=0)
    with pytest.raises(JobError, match=r"^job\.yaml: cannot be read: Permission denied$"):
        Job.load("job.yaml")


def test_the_path_is_shown_as_it_was_given(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "job.yaml").write_text("- 1")
    for shown in ("sub/job.yaml", "sub/../sub/job.yaml", str(folder / "sub" / "job.yaml")):
        with pytest.raises(JobError) as caught:
            Job.load(shown)
        assert str(caught.value).startswith(f"{shown}:1: ")


@pytest.mark.timeout(60)
def test_a_wrong_job_is_refused_without_torch_or_ray(folder: Path) -> None:
    (folder / "job.yaml").write_text("nam: digits\n")
    program = """
import sys
from distrib.errors import JobError
from distrib.job.reader import Job
try:
    Job.load("job.yaml")
except JobError as error:
    assert "job.yaml:1: nam: unknown key 'nam'; did you mean 'name'?" in str(error), error
assert not {"torch", "ray", "numpy", "typer"} & set(sys.modules), sorted(sys.modules)
"""
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
