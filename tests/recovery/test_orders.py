"""Orders of the job's own and averages of weights: killed in the middle of an epoch, resumed with the same bits."""

import pytest

from tests.support.recovery_runs import assert_same, job, run_through, samples_by_step

pytestmark = pytest.mark.timeout(120)

STEPS = 40
EMA = {"target": "distrib.callbacks:Ema", "args": {"decay": 0.9}}
ORDERS = {
    "sequential": "sequential",
    "weighted": {"target": "order_jobs:weighted", "args": {"num_samples": 70}},
    "bucketed": "order_jobs:bucketed",
    "curriculum": {"target": "order_jobs:Curriculum", "args": {"batch_size": 8, "first": 30}},
}
WORLD_SIZES = {"sequential": 2, "weighted": 4, "bucketed": 3, "curriculum": 2}


def ordered(name, world_size, **sections):
    return job(
        data={"order": ORDERS[name], "loader_workers": world_size % 2},
        callbacks=[EMA],
        schedule=None,
        train={"steps": STEPS, "log_every": 1, "eval_every": "1 epoch"},
        resources={"workers": world_size},
        **sections,
    )


@pytest.mark.parametrize("name", ORDERS)
def test_a_killed_run_continues_in_the_middle_of_an_epoch(make_place, name):
    world_size = WORLD_SIZES[name]
    reference, place = (make_place(folder, ordered(name, world_size)) for folder in ("reference", "killed"))
    reference.start()
    strikes = [
        {"moment": "updated", "rank": world_size - 1, "nth": 16, "victim": "self"},
        {"moment": "forward", "rank": 0, "nth": 9, "victim": "launcher"},
    ]
    run_through(place, strikes)
    assert_same(place, reference, world_size, STEPS, is_shuffled=False)
    assert place.layout.ema_file.exists()
    restarts = [event for event in place.events("restart") if event["step"]]
    at_step = {event["step"]: event["samples"] for event in reference.events("train")}
    assert restarts
    assert all(event["samples"] == at_step[event["step"]] for event in restarts)


def test_another_number_of_ranks_continues_with_the_same_batches(make_place):
    spec = ordered("curriculum", 3, model={"target": "recovery_jobs:Fragile", "args": {"dropout": 0.0}})
    reference, place = (make_place(folder, spec) for folder in ("reference", "resized"))
    reference.start()
    place.stop_at(14)
    place.write({**spec, "resources": {**spec["resources"], "workers": 2}})
    place.finish()
    reference.launches[-1].wait(60)
    found, expected = (
        {step: [index for rank in sorted(ranks) for index in ranks[rank][1]] for step, ranks in samples.items()}
        for samples in (samples_by_step(each.layout, 3) for each in (place, reference))
    )
    assert found == expected
    counts, theirs = ({e["step"]: e["samples"] for e in each.events("train")} for each in (place, reference))
    assert counts == theirs
