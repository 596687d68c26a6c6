"""Exported files load without distrib and the job's code and give the model's outputs."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from distrib.errors import InferenceError
from distrib.inference.export import export
from distrib.inference.exported_program import failure_reason
from tests.support.inference_runs import JOB, make_model, make_run, trained_by

pytestmark = pytest.mark.timeout(120)

NAMED = [
    {"left": {"shape": [None, 1], "dtype": "float64"}, "right": {"shape": [None, 3], "dtype": "float64"}},
    {"shape": [None], "dtype": "int64"},
]
CLEAN_PROGRAM = """
import json, sys
sys.modules["distrib"] = sys.modules["inference_jobs"] = None
import torch
inputs = torch.tensor(json.loads(sys.argv[2]), dtype=torch.float64)
module = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    print(json.dumps(module(inputs).tolist()))
"""


def run_elsewhere(file, inputs):
    """The outputs of a program in an interpreter that cannot import this package or the job."""
    given = json.dumps(inputs.tolist())
    result = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN_PROGRAM, str(file), given],
        capture_output=True, text=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip
    return torch.tensor(json.loads(result.stdout), dtype=torch.float64)


def test_weights_load_with_safetensors_alone(tmp_path, monkeypatch):
    trained = trained_by(make_run(tmp_path), monkeypatch)
    exported = export(trained, "safetensors", tmp_path / "out.safetensors")
    assert (exported.largest_difference, exported.notices) == (0.0, ())
    loaded, expected = load_file(tmp_path / "out.safetensors"), make_model().state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)


def test_a_program_runs_alone_for_any_number_of_rows(tmp_path, monkeypatch):
    trained = trained_by(make_run(tmp_path), monkeypatch)
    exported = export(trained, "torch-export", tmp_path / "out.pt2")
    assert exported.checked_batches == (1, 2, 3, 8)
    assert exported.largest_difference < 1e-12
    inputs = torch.randn(5, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = make_model()(inputs)
    torch.testing.assert_close(run_elsewhere(tmp_path / "out.pt2", inputs), expected)


def test_a_model_that_fixes_its_batch_size_and_takes_named_inputs(tmp_path, monkeypatch):
    job = JOB.replace("inference_jobs:Mlp", "{target: inference_jobs:ByName, args: {is_fixed: true}}")
    model = make_model("ByName", is_fixed=True)
    trained = trained_by(make_run(tmp_path, job=job, model=model, signature=NAMED), monkeypatch)
    exported = export(trained, "torch-export", tmp_path / "out.pt2")
    assert exported.checked_batches == (1,)
    assert "accepts exactly 1 row at a time" in exported.notices[0]
    assert exported.largest_difference == 0.0


REFUSED = {
    "a branch on data": ("Fussy", "torch-export", "torch.export cannot trace this model: .*; use `format` safetensors"),
    "other answers each time": ("Restless", "safetensors", "gives other outputs for .* nothing was written"),
}


@pytest.mark.parametrize(("model", "file_format", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_leaves_no_file(tmp_path, monkeypatch, model, file_format, message):
    trained = trained_by(make_run(tmp_path, job=JOB.replace("Mlp", model)), monkeypatch)
    before = set(tmp_path.iterdir())
    with pytest.raises(InferenceError, match=message):
        export(trained, file_format, tmp_path / "out")
    assert set(tmp_path.iterdir()) - {tmp_path / "__pycache__"} == before - {tmp_path / "__pycache__"}


def test_the_command_prints_what_it_compared_and_keeps_existing_files(tmp_path, workplace):
    make_run(tmp_path)
    command = [sys.executable, "-m", "distrib", "export", "made", "--format", "safetensors"]
    launch = workplace.start_command(command)
    assert launch.wait(60) == 0, launch.stderr
    assert "the final weights; gives the same outputs as the model for batches of 1, 2, 3, 8" in launch.stdout
    again = workplace.start_command(command)
    assert (again.wait(60), "made.safetensors exists; --force overwrites it" in again.stderr) == (2, True)


_LOAD = "RuntimeError: We ran into an error when deserializing. Please check the warnings above for possible errors. \n"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            f"W1 x:3] NotImplementedError: Deserializing a.Out in pytree is not registered.\n{_LOAD}",
            "returns a.Out, wh",
        ),
        (f"W1 x:3] ImportError: needs the module mine.\n{_LOAD}", "ImportError: needs the module mine"),
        ("Traceback\n  File\nValueError: no such row.\n", "ValueError: no such row"),
        ("Killed\n", "Killed"),
        ("", "no output"),
    ],
)
def test_the_reason_is_not_the_reference_to_a_log(output, reason):
    assert reason in failure_reason(output)
    assert not failure_reason(output).endswith((".", " "))
