"""Prediction on a GPU, if there is one."""

import numpy
import pytest
import torch

from distrib.inference.latency import measure
from distrib.inference.prediction.predict import PredictOptions, predict
from distrib.inference.predictor import Predictor
from tests.support.inference_jobs import Rows
from tests.support.inference_runs import expected_outputs, make_model, make_run, trained_by

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def test_answers_are_those_of_the_cpu():
    forward = Predictor(make_model(), torch.device("cuda", 0))
    columns = forward(list(Rows(9).tensors), 9)
    assert abs(columns["output"] - expected_outputs(make_model(), 9).numpy()).max() <= 1e-12


def test_batches_under_way_do_not_disturb_each_other():
    forward = Predictor(make_model(), torch.device("cuda", 0))
    rows = Rows(40).tensors[0]
    pending = [forward.start(rows[index : index + 4], 4) for index in range(0, 40, 4)]
    outputs = numpy.concatenate([each.columns()["output"] for each in pending])
    assert abs(outputs - expected_outputs(make_model(), 40).numpy()).max() <= 1e-12


def test_predict_on_more_workers_than_gpus(tmp_path, monkeypatch):
    trained = trained_by(make_run(tmp_path), monkeypatch)
    out = tmp_path / "out.npy"
    predict(trained, "inference_jobs:Inputs", "{count: 11}", out, PredictOptions(2, "cuda", 2), lambda *_: None)
    assert abs(numpy.load(out) - expected_outputs(make_model(), 11).numpy()).max() <= 1e-12


def test_latency_counts_the_transfer(tmp_path, monkeypatch):
    trained = trained_by(make_run(tmp_path), monkeypatch)
    modes = ("eager", "compile")
    rows = list(measure(trained, device="cuda", batch_sizes=(1, 8), modes=modes, seconds=0.2, num_threads=1))
    assert [row.mode for row in rows] == ["eager", "eager", "compile", "compile"]
    for row in rows:
        assert row.reason is not None or 0 < row.transfer_ms < row.p99_ms
