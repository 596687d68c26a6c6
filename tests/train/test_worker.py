"""A job run twice: the same bits; and what a rank does not load."""

import pytest
import torch

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(names, marks=pytest.mark.runs(*names), id=names[1])
        for names in (
            ("loss-3", "loss-3-again"),
            ("augmented", "augmented-again"),
            ("augmented", "augmented-loader"),
        )
    ],
)
def test_the_same_job_gives_the_same_bits_and_the_same_events(runs, pair):
    first, second = (runs[name] for name in pair)
    assert first.exit_code == second.exit_code == 0
    assert first.layout.weights_file.read_bytes() == second.layout.weights_file.read_bytes()
    assert first.timeless_events() == second.timeless_events()
    assert {event["event"] for event in first.events()} >= {"start", "train", "eval"}


@pytest.mark.runs("loss-2")
def test_the_compiler_is_not_loaded_by_any_rank(run):
    assert [run.record(rank)["is_compiler_loaded"] for rank in range(2)] == [False, False]


@pytest.mark.runs("loss-2")
def test_an_optimizer_factory_gets_the_unwrapped_model(run):
    assert run.record()["model"] == "Mlp"


@pytest.mark.runs("loss-2")
def test_the_start_event_describes_the_input(run):
    (start,) = run.events("start")
    assert start["world_size"] == 2
    assert start["input_signature"] == [
        {"shape": [None, 6], "dtype": "float64"},
        {"shape": [None], "dtype": "int64"},
    ]


@pytest.mark.runs("compiled", "loss-2")
def test_a_job_may_use_the_compiler(runs):
    compiled, plain = runs["compiled"].record()["steps"], runs["loss-2"].record()["steps"]
    assert runs["compiled"].record()["is_compiler_loaded"]
    for ours, theirs in zip(compiled, plain, strict=False):
        for name, gradient in theirs["gradients"].items():
            torch.testing.assert_close(ours["gradients"][name], gradient)
