"""Which weights of a run are used, and the notices about the choice."""

import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from distrib.errors import InferenceError, JobError
from distrib.inference.trained_model import open_trained
from distrib.runs.find import find_run
from distrib.runs.run import Run
from distrib.train.checkpoint.weights import save_weights
from tests.support.inference_runs import JOB, copy_module, make_model, make_run, trained_by
from tests.support.launch_process import Workplace

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A run that really trained, with checkpoints of steps 4 and 6 and the best weights."""
    place = Workplace(tmp_path_factory.mktemp("trained"))
    copy_module(place.folder)
    text = JOB.replace("batch_size: 4", "batch_size: 4\n  eval: {target: inference_jobs:Rows, args: {count: 9}}")
    place.write("job.yaml", text + "checkpoint: {every: 2 steps, keep: 2, best: {metric: loss, mode: min}}\n")
    launch = place.start("--run-id", "real")
    assert launch.wait(60) == 0, launch.stderr
    yield place.runs / "real"
    place.close()


@pytest.fixture
def real(trained_run, tmp_path, monkeypatch):
    """A copy of that run to damage."""
    copy_module(tmp_path)
    shutil.copytree(trained_run, tmp_path / "runs" / "real")
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path / "runs" / "real")


def unfinish(run, status="failed"):
    text = run.layout.record_file.read_text().replace('"status": "finished"', f'"status": "{status}"')
    run.layout.record_file.write_text(text)
    run.weights.unlink()


def state(run, weights="last"):
    return open_trained(run, weights).build().state_dict()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_averaged_weights(real):
    with pytest.raises(JobError, match="real has no averaged weights; they are kept where the job has the callback"):
        open_trained(real, "ema")
    shutil.copy(real.best_weights, real.layout.ema_file)
    trained = open_trained(real, "ema")
    assert (trained.weights.label, trained.weights.notice) == ("the averaged weights", None)
    assert_same(trained.build().state_dict(), state(real, "best"))


def test_the_final_and_the_best_weights(real):
    trained = open_trained(real)
    assert (trained.weights.label, trained.weights.notice) == ("the final weights", None)
    model = trained.build()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert_same(model.state_dict(), load_file(real.weights))
    assert_same(state(real, "best"), load_file(real.layout.best_file))


def test_an_unfinished_run_gives_its_newest_checkpoint_with_a_note(real):
    final = load_file(real.weights)
    unfinish(real)
    trained = open_trained(real)
    assert trained.weights.label == "checkpoint step-00000006-a0"
    assert trained.weights.notice == (
        "real is failed at step 6 of 6; taking the weights of its newest checkpoint, of step 6"
    )
    assert_same(trained.build().state_dict(), final)


@pytest.mark.parametrize("name", ["4", "step-00000004-a0", "folder"])
def test_any_checkpoint_can_be_named(real, name):
    name = str(real.layout.checkpoints / "step-00000004-a0") if name == "folder" else name
    assert open_trained(real, name).weights.label == "checkpoint step-00000004-a0"
    before, final = state(real, name), load_file(real.weights)
    assert not torch.equal(before["layers.0.weight"], final["layers.0.weight"])


def test_a_damaged_checkpoint_is_skipped_with_a_note_and_kept(real, capsys):
    expected = state(real, "4")
    unfinish(real)
    newest = real.checkpoints.list()[0]
    (data,) = newest.path.glob("*.distcp")
    data.write_bytes(data.read_bytes()[:-7])
    assert_same(state(real), expected)
    assert "damaged, skipped: step-00000006-a0/__0_0.distcp: its size" in capsys.readouterr().err
    assert newest.path.exists()
    shutil.rmtree(real.layout.checkpoints / "step-00000004-a0")
    with pytest.raises(InferenceError, match=r"no checkpoint can be read:\n.*its size differs"):
        state(real)


def test_damaged_weights_are_refused_with_the_way_out(real):
    real.weights.write_bytes(real.weights.read_bytes()[:100])
    with pytest.raises(InferenceError, match=r"model.safetensors cannot be read: .*; use other `weights`"):
        state(real)
    real.weights.unlink()
    assert "model.safetensors is missing; taking the weights of" in open_trained(real).weights.notice


def test_weights_of_another_model_are_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    save_weights(torch.nn.Linear(2, 2), run.weights)
    with pytest.raises(InferenceError, match="does not fit the model: missing in the file: layers"):
        trained_by(run, monkeypatch).build()


def test_weights_that_are_not_there(tmp_path):
    run = make_run(tmp_path, status="failed")
    with pytest.raises(JobError, match=r"has no best weights; .* use `weights` last"):
        open_trained(run, "best")
    with pytest.raises(JobError, match="'12' is neither last, best, ema nor a committed checkpoint of made"):
        open_trained(run, "12")
    run.weights.unlink()
    with pytest.raises(JobError, match="made has no weights: it is failed at step 0 of 6, and no checkpoint"):
        open_trained(run)


def test_a_run_of_a_script_has_no_model(tmp_path):
    run = make_run(tmp_path, job="name: small\nscript: {file: train.py}\n")
    with pytest.raises(JobError, match=r"run made is of a script, whose model only its own code knows"):
        open_trained(run)


def test_modules_beside_the_jobs_file_are_found_from_elsewhere(real, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "inference_jobs", raising=False)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    assert open_trained(real).build() is not None  # in the folder that run.json names as the spec's


def test_a_run_by_id_and_by_folder(tmp_path):
    run = make_run(tmp_path)
    runs = tmp_path / "runs"
    assert find_run("made", runs).folder == run.folder
    assert find_run(str(run.folder), tmp_path).folder == run.folder
    with pytest.raises(JobError, match=r"there is no run 'mad' in .*; did you mean 'made'"):
        find_run("mad", runs)
    with pytest.raises(JobError, match="is a folder but not of a run"):
        find_run(str(runs), runs)
    with pytest.raises(JobError, match="there is no run 'x'"):
        find_run("x", tmp_path / "none")


def test_the_model_is_as_saved(tmp_path, monkeypatch):
    model = make_model()
    trained = trained_by(make_run(tmp_path, model=model), monkeypatch)
    assert_same(trained.build().state_dict(), model.state_dict())
