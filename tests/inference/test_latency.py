"""Latencies are measured; a device or mode that cannot be measured has a reason."""

import json
import sys

import pytest
import torch

from distrib.errors import InferenceError
from distrib.inference import latency
from distrib.inference.latency import as_data, measure
from distrib.observe.terminal.latency_table import print_latencies
from tests.support.inference_runs import JOB, make_run, trained_by

pytestmark = pytest.mark.timeout(120)


def test_percentiles():
    values = list(range(100, 0, -1))
    assert [latency._percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert latency._percentile([7.0], 0.99) == 7.0


@pytest.fixture
def threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))
    yield
    torch.set_num_threads(before)


def rows_of(trained, modes=("eager",), batch_sizes=(1, 3)):
    return list(measure(trained, device="cpu", batch_sizes=batch_sizes, modes=modes, seconds=0.05, num_threads=1))


def test_a_row_for_each_batch_size(tmp_path, monkeypatch, threads, capsys):
    slow = JOB.replace("inference_jobs:Mlp", "{target: inference_jobs:Slow, args: {seconds: 0.002}}")
    rows = rows_of(trained_by(make_run(tmp_path, job=slow), monkeypatch))
    assert [(row.device, row.mode, row.batch_size) for row in rows] == [
        ("cpu (1 thread)", "eager", 1), ("cpu (1 thread)", "eager", 3),
    ]  # fmt: skip
    for row in rows:
        assert 2 <= row.p50_ms <= row.p95_ms <= row.p99_ms
        assert row.num_calls >= 20
        assert row.transfer_ms is None
        assert 0 < row.samples_per_second <= 1e3 * row.batch_size / 2
    print_latencies(as_data(rows))
    table = capsys.readouterr().out
    assert "samples/s" in table
    assert table.count("cpu (1 thread)") == 2


def test_a_row_has_the_reason_if_nothing_can_be_compiled(tmp_path, workplace):
    make_run(tmp_path)
    command = [sys.executable, "-m", "distrib", "latency", "made", "--seconds", "0.01", "--batch", "2", "--json"]
    environment = {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    launch = workplace.start_command([*command, "--device", "auto"], environment)
    assert launch.wait(90) == 0, launch.stderr
    eager, compiled = [row for row in json.loads(launch.stdout)["rows"] if row["device"].startswith("cpu")]
    assert (eager["mode"], eager["reason"], eager["batch_size"]) == ("eager", None, 2)
    assert (compiled["mode"], compiled["p50_ms"]) == ("compile", None)
    assert "compiler" in compiled["reason"].lower()
    if not torch.cuda.is_available():
        assert "no GPU: measuring only the CPU" in launch.stderr
    print_latencies([eager, compiled])


def test_a_model_that_refuses_inputs_of_its_signature(tmp_path, monkeypatch, threads):
    signature = [{"shape": [None, 7], "dtype": "float64"}, None]
    trained = trained_by(make_run(tmp_path, signature=signature), monkeypatch)
    with pytest.raises(InferenceError, match="the model fails on synthetic inputs"):
        rows_of(trained)
