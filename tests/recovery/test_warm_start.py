"""`model.weights`: begun with once, and never again."""

import pytest

from tests.support.recovery_runs import RUN, assert_same, job

pytestmark = pytest.mark.timeout(120)

STILL = {"target": "torch.optim:SGD", "args": {"lr": 0.0}}


def warm(weights, hidden=8, steps=21, **changes):
    model = {"target": "recovery_jobs:Fragile", "args": {"hidden": hidden}, "weights": str(weights)}
    return job(model=model, train={"steps": steps}, **changes)


@pytest.fixture
def weights(make_place):
    place = make_place("before", job(train={"steps": 7}))
    place.finish()
    return place.layout.weights_file


def test_training_begins_with_them(make_place, weights):
    still, moving = make_place("still", warm(weights, optimizer=STILL)), make_place("moving", warm(weights))
    for place in (still, moving):
        place.finish()
    assert still.layout.weights_file.read_bytes() == weights.read_bytes()
    assert moving.layout.weights_file.read_bytes() != weights.read_bytes()


def test_a_run_that_goes_on_needs_them_no_more(make_place, weights):
    reference, place = (make_place(name, warm("first.safetensors", steps=52)) for name in ("reference", "stopped"))
    for one in (reference, place):
        (one.folder / "first.safetensors").write_bytes(weights.read_bytes())
    reference.finish()
    place.stop_at(7)
    (place.folder / "first.safetensors").unlink()
    place.finish()
    assert_same(place, reference, 2, 52)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (warm("nothing.safetensors"), "job.yaml:1: model.weights: there is no file nothing.safetensors in "),
        (warm("job.yaml"), "job.yaml:1: model.weights: "),
        (warm("first.safetensors", hidden=9), "layers.0.bias: (8,) in the file, (9,) in the model; layers.0.weight: "),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(make_place, weights, spec, message):
    place = make_place("refused", spec)
    (place.folder / "first.safetensors").write_bytes(weights.read_bytes())
    launch = place.start()
    assert launch.wait(40) == 2
    assert message in launch.output
    assert not (place.folder / "runs" / RUN).exists()


def test_they_are_part_of_the_job(make_place, weights):
    place = make_place("changed", warm(weights))
    place.finish()
    place.write(warm(weights.with_name("other.safetensors")))
    launch = place.start()
    assert launch.wait(40) == 2
    assert "run run was made by another job" in launch.output
    assert f"model.weights: {str(weights)!r} then, " in launch.output
