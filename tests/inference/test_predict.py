"""Prediction writes one row per row, in order, for any number of workers, and writes the file atomically."""

import json
import signal

import numpy
import pyarrow.parquet
import pytest
import torch

from distrib.inference.prediction.predict import PredictOptions, predict, split_rows
from tests.support.inference_jobs import Inputs
from tests.support.inference_runs import JOB, expected_outputs, make_model, make_run, trained_by

pytestmark = pytest.mark.timeout(120)

LENGTHS = (0, 1, 2, 5, 10, 16)
WORKERS = (1, 2, 3)


def case(run, out, data="Inputs", workers=1, **others):
    return {"run": str(run.folder), "data": f"inference_jobs:{data}", "out": str(out), "workers": workers, **others}


@pytest.mark.parametrize("num_workers", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 10, 100])
def test_rows_are_split_without_gap_overlap_or_empty_worker(num_rows, num_workers):
    shards = split_rows(num_rows, num_workers)
    assert [row for shard in shards for row in shard] == list(range(num_rows))
    assert len(shards) == max(1, min(num_rows, num_workers))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_outputs_are_those_of_a_plain_loop_at_any_number_of_workers(tmp_path, predict_all):
    run = make_run(tmp_path)
    cases = [
        case(run, tmp_path / f"{count}-{workers}.npy", data, workers, args=f"{{count: {count}}}", batch_size=3)
        for count in LENGTHS
        for workers in WORKERS
        for data in ["Rows" if count % 2 else "Inputs"]
    ]
    results = predict_all(cases)
    model = make_model()
    for (count, workers), result in zip([(n, w) for n in LENGTHS for w in WORKERS], results, strict=True):
        assert "error" not in result, result
        outputs = numpy.load(tmp_path / f"{count}-{workers}.npy")
        expected = expected_outputs(model, count).numpy()
        assert outputs.dtype == numpy.float64
        assert outputs.shape == expected.shape
        assert abs(outputs - expected).max(initial=0) <= 1e-12
        assert (result["rows"], result["workers"]) == (count, max(1, min(count, workers)))
        assert result["progress"][-1:] == ([[count, count]] if count else [[0, 0]])


def test_named_columns_in_parquet_and_json(tmp_path, predict_all):
    job = JOB + "predict: {target: inference_jobs:classify, args: {names: [x, y, z]}}\n"
    run = make_run(tmp_path, job=job)
    results = predict_all(
        [
            case(run, tmp_path / "out.parquet", "Rows", 2, args="{count: 11}"),
            case(run, tmp_path / "out.jsonl", "Rows", 3, args="{count: 11}"),
            case(run, tmp_path / "none.parquet", "Rows", 3, args="{count: 0}"),
            case(run, tmp_path / "out.npy", "Rows", args="{count: 11}"),
        ]
    )
    probabilities = expected_outputs(make_model(), 11).softmax(dim=1)
    labels = ["xyz"[index] for index in probabilities.argmax(dim=1).tolist()]
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert table["label"] == labels == [line["label"] for line in lines]
    for found in (table["probabilities"], [line["probabilities"] for line in lines]):
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), probabilities, rtol=0, atol=1e-12)
    empty = pyarrow.parquet.read_table(tmp_path / "none.parquet")
    assert (empty.num_rows, empty.column_names) == (0, ["label", "probabilities"])
    assert "named columns: label, probabilities; use .parquet or .jsonl" in results[3]["error"]
    assert not (tmp_path / "out.npy").exists()


def test_what_is_refused_names_the_row_and_shows_the_users_own_traceback(tmp_path, predict_all):
    run = make_run(tmp_path)
    fussy = make_run(tmp_path, job=JOB.replace("Mlp", "Fussy"), run_id="fussy")
    summary = make_run(tmp_path, job=JOB.replace("Mlp", "Summary"), run_id="summary")
    loaded = make_run(tmp_path, job=JOB.replace("batch_size: 4", "batch_size: 4\n  loader_workers: 1"), run_id="loaded")
    out = tmp_path / "out.npy"
    by_dataset = ["row 7: the dataset fails on it: KeyError", "in __getitem__"]
    refusals = {
        "the dataset": (
            run,
            "Refusing",
            "{count: 9, row: 7}",
            2,
            by_dataset,
        ),
        "a loader": (
            loaded,
            "Refusing",
            "{count: 9, row: 7}",
            1,
            by_dataset,
        ),
        "the collation": (run, "Refusing", "{count: 9, row: 6, how: long}", 1, ["row 6", "the dataset fails on it"]),
        "the model": (fussy, "Refusing", "{count: 9, row: 7, how: nan}", 3, ["row 7: the model fails", "ValueError"]),
        "the form": (run, "Triples", "{count: 3}", 1, ["batches are a list of 3", "predict:"]),
        "one answer for all": (summary, "Inputs", "{count: 3}", 1, ["one entry for each of 3 rows", "predict:"]),
        "no such dataset": (run, "Nothing", "{}", 1, ["`data`", "has no 'Nothing'"]),
        "a wrong argument": (run, "Inputs", "{cont: 3}", 1, ["`args`", "did you mean 'count'"]),
    }
    cases = [case(which, out, data, workers, args=args) for which, data, args, workers, _ in refusals.values()]
    for name, result, wanted in zip(refusals, predict_all(cases), [r[-1] for r in refusals.values()], strict=True):
        for text in wanted:
            assert text in result["error"], (name, result)
        assert "distrib/inference" not in result["error"]
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_not_a_number_goes_where_it_can(tmp_path, predict_all):
    run = make_run(tmp_path)
    args = "{count: 6, row: 5, how: nan}"
    outs = [tmp_path / name for name in ("out.jsonl", "out.npy", "out.parquet")]
    results = predict_all([case(run, out, "Refusing", 2, args=args) for out in outs])
    assert "row 5: its output is NaN or infinite, which JSON cannot represent" in results[0]["error"]
    assert numpy.isnan(numpy.load(outs[1])[5]).all()
    assert numpy.isnan(pyarrow.parquet.read_table(outs[2]).to_pydict()["output"][5]).all()


def test_a_file_that_exists_is_kept_unless_forced(tmp_path, predict_all):
    run, out = make_run(tmp_path), tmp_path / "out.npy"
    out.write_text("precious")
    (refused,) = predict_all([case(run, out, args="{count: 2}")])
    assert (refused["exit_code"], out.read_text()) == (2, "precious")
    assert "`force` overwrites it" in refused["error"]
    predict_all([case(run, out, args="{count: 2}", force=True)])
    assert numpy.load(out).shape == (2, 3)


def test_augmentation_does_not_depend_on_the_workers(tmp_path, predict_all):
    run = make_run(tmp_path)
    outs = [tmp_path / f"{workers}.npy" for workers in (1, 3)]
    predict_all([case(run, out, "Augmented", int(out.stem), args="{count: 7}", batch_size=2) for out in outs])
    assert abs(numpy.load(outs[0]) - numpy.load(outs[1])).max() <= 1e-12


def test_processes_that_cannot_be_forked_are_started(tmp_path, monkeypatch):
    trained = trained_by(make_run(tmp_path), monkeypatch)  # this process has used torch, and so is not forked
    out = tmp_path / "out.npy"
    predict(trained, "inference_jobs:Inputs", "{count: 5}", out, PredictOptions(2, "cpu"), lambda *_: None)
    assert abs(numpy.load(out) - expected_outputs(make_model(), 5).numpy()).max() <= 1e-12
    assert len(Inputs(5)) == 5


def test_the_command(tmp_path, workplace):
    make_run(tmp_path)
    command = ["predict", "made", "--data", "inference_jobs:Inputs", "--args", "{count: 7}", "--workers", "2"]
    launch = start(workplace, *command, "--out", "out.npy", "--json")
    assert launch.wait(60) == 0, launch.stderr
    told = json.loads(launch.stdout)
    assert (told["rows"], told["workers"], told["weights"], told["out"]) == (7, 2, "the final weights", "out.npy")
    assert told["samples_per_second"] > 0
    assert numpy.load(tmp_path / "out.npy").shape == (7, 3)
    workplace.assert_clean()


ENDS = {"Ctrl-C": (signal.SIGINT, 130), "kill": (signal.SIGTERM, 130), "kill -9": (signal.SIGKILL, -9)}


@pytest.mark.parametrize(("number", "code"), ENDS.values(), ids=ENDS)
def test_an_early_end_leaves_no_file_and_no_process(tmp_path, workplace, number, code):
    job = JOB.replace("inference_jobs:Mlp", "{target: inference_jobs:Slow, args: {seconds: 0.2}}")
    make_run(tmp_path, job=job)
    command = ["predict", "made", "--data", "inference_jobs:Inputs", "--args", "{count: 4000}", "--workers", "2"]
    launch = start(workplace, *command, "--out", "out.jsonl")
    launch.wait_until(lambda: list(tmp_path.glob(".out.jsonl.*/part-1*")))
    assert len(launch.processes()) == 3
    launch.send(number, to_group=number == signal.SIGINT)
    assert launch.wait(60) == code
    launch.wait_until_gone()
    assert not (tmp_path / "out.jsonl").exists()
    if number != signal.SIGKILL:
        assert list(tmp_path.glob(".out.jsonl.*")) == []
        assert launch.stderr == "distrib: interrupted\n"


def test_a_process_that_dies_is_reported(tmp_path, workplace):
    make_run(tmp_path, job=JOB.replace("Mlp", "Deadly"))
    command = ["predict", "made", "--data", "inference_jobs:Inputs", "--args", "{count: 6}", "--batch-size", "2"]
    launch = start(workplace, *command, "--out", "out.npy", "--workers", "2")
    assert launch.wait(60) == 1
    assert "was killed by SIGKILL (possibly out of memory" in launch.stderr
    assert "Traceback" not in launch.stderr
    assert not (tmp_path / "out.npy").exists()


def start(workplace, *arguments):
    import sys

    return workplace.start_command([sys.executable, "-m", "distrib", *arguments, "--runs-dir", str(workplace.runs)])
