"""Callbacks: called at fixed points on every rank, kept in checkpoints; early stopping."""

import math

import pytest

from distrib.callbacks import EarlyStopping
from distrib.errors import DistribError
from tests.train.session.test_exact import POINTS, SGD, events_of, launch, make_spec

__all__ = ["launch"]
pytestmark = pytest.mark.timeout(120)


class Recorder:
    """A session that only remembers why it was stopped."""

    reason = None

    def stop(self, reason):
        self.reason = reason


def make(callbacks, world_size=2, **train):
    spec = make_spec("plain", world_size, model="exact_jobs:Mlp", train_data=POINTS, optimizer=SGD)
    spec["data"]["eval"] = {"target": "exact_jobs:Points", "args": {"num_samples": 7, "seed": 1}}
    del spec["step"]
    spec["train"] |= {"eval_every": "4 steps", **train}
    return {**spec, "loss": "torch.nn:CrossEntropyLoss", "callbacks": callbacks, "checkpoint": {"every": "2 steps"}}


@pytest.mark.parametrize("world_size", [1, 2])
def test_callbacks_are_called_in_order_and_continue_where_they_were(launch, world_size):
    spec = make(["session_jobs:Diary"], world_size, steps=6)
    finished, folder = launch(spec)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = (folder / "diary.txt").read_text().splitlines()
    losses = {event["step"]: f"{event['loss']:.3f}" for event in events_of(folder, "train")}
    evaluations = {event["step"]: f"{event['loss']:.3f}" for event in events_of(folder, "eval")}
    expected = ["0 start after 0"]
    for step in range(1, 7):
        if world_size == 1:
            expected.append(f"{step} step {losses[step]}")
        else:
            expected.append(lines[len(expected)])
            assert expected[-1].startswith(f"{step} step ")
        expected += [f"{step} evaluation {evaluations[step]}"] if step in evaluations else []
    assert lines == [*expected, "6 end after 6"]
    spec["train"]["steps"] = 8
    finished, _ = launch(spec, "--extend")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    more = (folder / "diary.txt").read_text().splitlines()[len(lines) :]
    assert (more[0], more[-1]) == ("6 start after 6", "8 end after 8")


def test_a_training_that_no_longer_improves_ends_as_finished(launch):
    stopping = {"target": "distrib.callbacks:EarlyStopping", "args": {"patience": 2, "min_delta": 100.0}}
    finished, folder = launch(make([stopping], steps=1000))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (end,) = events_of(folder, "end")
    assert (end["step"], end["message"]) == (12, "the job ended the training: loss has not improved for 2 evaluations")
    assert events_of(folder, "checkpoint")[-1]["step"] == 12
    assert [event["step"] for event in events_of(folder, "eval")] == [4, 8, 12]


@pytest.mark.parametrize(
    ("mode", "values", "stops_at"),
    [
        ("min", [3.0, 2.0, 2.5, 1.0, 1.0, 1.0], 5),
        ("max", [3.0, 2.0, 2.5, 4.0], 2),
        ("min", [3.0, math.nan, None], 2),
        ("min", [3.0, 2.0, 1.0, 0.0], None),
    ],
)
def test_early_stopping_counts_evaluations_without_an_improvement(mode, values, stops_at):
    session, callback = Recorder(), EarlyStopping("metric", patience=2, mode=mode)
    for number, value in enumerate(values):
        resumed = EarlyStopping("metric", patience=2, mode=mode)
        resumed.load_state_dict(callback.state_dict())
        callback = resumed
        callback.on_evaluation(session, {"metric": value})
        assert (session.reason is not None) == (number == stops_at)
        if number == stops_at:
            break


def test_an_unknown_metric_is_named():
    with pytest.raises(DistribError, match="evaluations have no 'acuracy'; they have loss, accuracy"):
        EarlyStopping("acuracy").on_evaluation(Recorder(), {"loss": 1.0, "accuracy": 0.5})


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ("exact_jobs:Mlp", "callbacks.0: exact_jobs:Mlp gives a Mlp with none of on_start, on_step, on_evaluation"),
        (
            {"target": "distrib.callbacks:EarlyStopping", "args": {"patience": 0}},
            "callbacks.0: distrib.callbacks:Early",
        ),
        ({"target": "distrib.callbacks:EarlyStopping", "args": {"patients": 1}}, "did you mean 'patience'?"),
    ],
)
def test_a_callback_that_cannot_be_used_is_refused_in_a_line(launch, callback, message):
    finished, _ = launch(make([callback]))
    assert finished.returncode == 2
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
