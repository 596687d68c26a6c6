"""Trained models of runs in a bucket: finished, unfinished and damaged."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from distrib.errors import InferenceError
from distrib.inference.trained_model import open_trained
from distrib.runs.find import find_run, find_runs
from distrib.runs.run import Run
from distrib.runs.storage.store.segments import SegmentWriter
from tests.inference.test_trained_model import assert_same, trained_run  # noqa: F401 - a fixture
from tests.support.inference_runs import copy_module

pytestmark = pytest.mark.timeout(120)


def upload(folder, storage, name, status):
    """Puts a run's folder into a bucket as its launcher and ranks would have done."""
    run = Run(folder)
    run.update_record(status=status, **({"ended": None} if status == "running" else {}))
    for path in folder.rglob("*"):
        file = path.relative_to(folder).as_posix()
        if path.is_file() and not file.startswith(("metrics", ".", "lease")):
            storage.put_file(f"{name}/{file}", path)
    SegmentWriter(storage.below(name), "metrics", run.layout.metrics_file, 0).push()


@pytest.fixture
def stored(trained_run, bucket, tmp_path, monkeypatch):  # noqa: F811
    """A run in the bucket, `real`, and gives it another status; its local copy."""
    copy_module(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "uploaded" / "real"
    shutil.copytree(trained_run, folder)

    def store(status="finished"):
        if status != "finished":
            (folder / "model.safetensors").unlink()
        upload(folder, bucket, "real", status)
        return Run(folder)

    return store


@pytest.mark.parametrize("status", ["running", "failed", "stopped"])
def test_an_unfinished_run_has_the_weights_of_its_newest_checkpoint(bucket, stored, status):
    run = stored(status)
    trained = open_trained(find_run("real", bucket.url))
    assert "taking the weights of its newest checkpoint, of step 6" in trained.weights.notice
    assert_same(trained.build().state_dict(), open_trained(run).build().state_dict())


def test_a_checkpoint_can_be_chosen(bucket, stored):
    run = stored()
    for choice in ("4", "step-00000004-a0"):
        trained = open_trained(find_run("real", bucket.url), choice)
        assert_same(trained.build().state_dict(), open_trained(run, choice).build().state_dict())


def test_a_damaged_checkpoint_is_skipped(bucket, stored, capsys, tmp_path):
    run = stored("stopped")
    bucket.put("real/checkpoints/step-00000006-a0/__0_0.distcp", b"damaged")
    model = open_trained(find_run("real", bucket.url)).build()
    assert_same(model.state_dict(), open_trained(run, "4").build().state_dict())
    assert "damaged, skipped: step-00000006-a0" in capsys.readouterr().err
    bucket.put("real/checkpoints/step-00000004-a0/__0_0.distcp", b"damaged too")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InferenceError, match="no checkpoint can be read"):
        open_trained(find_run("real", bucket.url)).build()


def test_the_commands(bucket, stored, workplace, s3_proxy, monkeypatch):
    """`status` of a finished run downloads no weights; `export` and `predict` use those of an unfinished one."""
    run = stored()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    copy_module(workplace.folder)
    s3_proxy.heal()

    def command(*arguments):
        s3_proxy.seen.clear()
        launch = workplace.start_command([sys.executable, "-m", "distrib", *arguments, "--runs-dir", bucket.url])
        assert launch.wait(60) == 0, launch.stderr
        return launch

    status = command("status", "real")
    assert f"weights     {bucket.url}/real/model.safetensors" in status.stdout
    gets = [path for method, path in s3_proxy.seen if method == "GET"]
    assert not any("model.safetensors" in path or "distcp" in path for path in gets)
    assert json.loads(command("status", "real", "--json").stdout)["metrics"].keys() == {"loss"}

    bucket.delete("real/model.safetensors")
    bucket.put("real/run.json", run.layout.record_file.read_bytes().replace(b'"finished"', b'"stopped"'))
    command("export", "real", "--format", "safetensors", "--out", "exported.safetensors")
    exported = load_file(workplace.folder / "exported.safetensors")
    expected = open_trained(run).build().state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in expected.items())
    command("predict", "real", "--data", "inference_jobs:Inputs", "--args", "{count: 5}", "--out", "out.npy")
    assert (workplace.folder / "out.npy").exists()


def test_listing_reads_no_metrics_of_runs_that_have_ended_and_the_end_of_others(bucket, stored, s3_proxy, monkeypatch):
    stored()
    for number in range(3):
        for name in ("run.json", "job.yaml"):
            bucket.put(f"more-{number}/{name}", bucket.get(f"real/{name}"))
    record = json.loads(bucket.get("real/run.json"))
    record |= {
        "status": "running",
        "result": None,
        "completed_steps": None,
        "ended": None,
        "owner": {"host": "elsewhere", "pid": 1},
    }
    bucket.put("running/run.json", json.dumps(record).encode())
    event = {"time": 1.0, "attempt": 0, "event": "train", "epoch": 0, "samples": 1, "loss": 0.5}
    for number in range(5):
        lines = [json.dumps({**event, "step": 10 * number + step}) for step in range(10)]
        bucket.put(f"running/metrics/{number:08d}-a0.jsonl", "".join(line + "\n" for line in lines).encode())
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    s3_proxy.heal()
    s3_proxy.seen.clear()
    runs = {run.id: run for run in find_runs(bucket.url)}
    assert set(runs) == {"real", "more-0", "more-1", "more-2", "running"}
    reads = [path for method, path in s3_proxy.seen if method == "GET" and "list-type" not in path]
    assert len(reads) == 5
    assert all(path.endswith("run.json") for path in reads)
    assert {runs[name].status for name in runs} == {"finished", "running"}
    assert runs["real"].metrics == runs["more-0"].metrics
    assert runs["running"].steps == (49, 6)
    assert runs["real"].steps == (6, 6)
    segments = [path for method, path in s3_proxy.seen if method == "GET" and path.endswith(".jsonl")]
    assert [path.rpartition("/running/")[2] for path in segments] == ["metrics/00000004-a0.jsonl"]
