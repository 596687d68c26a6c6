"""What --record-samples keeps: every sample once an epoch, at the rank and step of the contract."""

import pytest
from exact_reference import global_batch, part
from exact_specs import BATCH_SIZE, LOSS_STEPS, NUM_SAMPLES, SEED, STEPS_PER_EPOCH, TOKEN_STEPS

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("name", "world_size", "num_steps"),
    [
        pytest.param(name, world_size, num_steps, marks=pytest.mark.runs(name), id=name)
        for name, world_size, num_steps in (
            ("loss-1", 1, LOSS_STEPS),
            ("loss-3", 3, LOSS_STEPS),
            ("loss-5", 5, LOSS_STEPS),
            ("step-5-accumulate-2", 5, TOKEN_STEPS),
        )
    ],
)
def test_the_record_of_a_run(runs, name, world_size, num_steps):
    records = [runs[name].samples(rank) for rank in range(world_size)]
    for rank, record in enumerate(records):
        assert record == [
            {
                "attempt": 0,
                "epoch": step // STEPS_PER_EPOCH,
                "step": step + 1,
                "ids": part(global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, step), rank, world_size),
            }
            for step in range(num_steps)
        ]
    for epoch in range(num_steps // STEPS_PER_EPOCH):
        lines = [line for record in records for line in record if line["epoch"] == epoch]
        assert sorted(index for line in lines for index in line["ids"]) == list(range(NUM_SAMPLES))
