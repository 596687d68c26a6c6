"""What a training may be made of, each thing killed once: all of its state is in the checkpoints."""

import random

import pytest

from tests.support.recovery_runs import assert_same, job, run_through

pytestmark = pytest.mark.timeout(120)

STEPS = 60


def schedule(name, every="step", metric=None, **args):
    """A learning-rate schedule of torch."""
    found = {"target": f"torch.optim.lr_scheduler:{name}", "args": args, "every": every}
    return {**found, "metric": metric} if metric else found


def sgd(**args):
    return {"target": "torch.optim:SGD", "args": {"lr": 0.05, **args}}


def training(**args):
    return {"steps": STEPS, "log_every": 1, "eval_every": "10 steps", **args}


AUGMENTED = {"target": "recovery_jobs:Augmented", "args": {"num_samples": 101}}
HALF = {"num_samples": 101, "dtype": "float32"}
SPECS = {
    "dropout, augmentation, loaders, accumulation, OneCycleLR with momentum": job(
        data={"train": AUGMENTED, "loader_workers": 1},
        optimizer=sgd(momentum=0.9),
        schedule=schedule("OneCycleLR", max_lr=0.2, total_steps="$steps"),
        train=training(accumulate=2),
    ),
    "buffers, ReduceLROnPlateau": job(
        model="recovery_jobs:FragileNorm",
        schedule=schedule("ReduceLROnPlateau", "eval", "loss", patience=0, threshold=0.2),
        optimizer=sgd(),
        train=training(),
    ),
    "fp16 with overflow, clipping, StepLR": job(
        model="recovery_jobs:FragileHalf",
        data={
            "train": {"target": "recovery_jobs:Points", "args": HALF},
            "eval": {"target": "recovery_jobs:Points", "args": {**HALF, "seed": 1}},
        },
        loss=None,
        step={"target": "exact_jobs:scaled_loss", "args": {"scale": 1024.0}},
        metrics={"accuracy": None},
        schedule=schedule("StepLR", "epoch", step_size=1, gamma=0.7),
        train=training(precision="fp16", clip_norm=300.0),
    ),
    "PowerSGD, with what each rank has left out": job(
        model={"target": "recovery_jobs:Fragile", "args": {"hidden": 64, "dropout": 0}},
        ddp={"compress": "powersgd", "powersgd": {"start_step": 3}, "bucket_mb": 25},
        optimizer=sgd(),
        train=training(),
    ),
    "MultiStepLR, Adagrad": job(
        optimizer={"target": "torch.optim:Adagrad", "args": {"lr": 0.05}},
        schedule=schedule("MultiStepLR", milestones=[10, 30, 31, 50]),
        train=training(),
    ),
    "schedules in sequence": job(
        optimizer={"target": "torch.optim:NAdam", "args": {"lr": 0.05}},
        schedule={"target": "recovery_jobs:warm_up_then_decay", "args": {"num_steps": "$steps"}},
        train=training(log_every=1),
    ),
    "channels-last weights, a teacher, a buffer made in forward, extra state, a loss with parameters": job(
        model="recovery_jobs:FragileTwins",
        loss="recovery_jobs:Proxies",
        optimizer={"target": "torch.optim:AdamW", "args": {"lr": 0.01}},
        schedule=schedule("CosineAnnealingLR", T_max="$steps"),
        train=training(),
    ),
    "LinearLR": job(
        optimizer={"target": "torch.optim:RMSprop", "args": {"lr": 0.01, "momentum": 0.5}},
        schedule=schedule("LinearLR", start_factor=0.1, total_iters=40),
        train=training(),
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_state_of(make_place, name):
    reference, place = (make_place(folder, SPECS[name]) for folder in ("reference", "killed"))
    reference.start()
    nth = random.Random(name).randrange(24, 40)
    run_through(place, [{"moment": "update", "rank": 1, "nth": nth, "victim": "self"}])
    assert_same(place, reference, 2, STEPS)
    assert place.warnings() == reference.warnings()
    rates = {event["lr"] for event in place.events("train")}
    assert len(rates) > 1


@pytest.mark.parametrize("world_size", [2, 3, pytest.param(4, marks=pytest.mark.long)])
def test_a_step_that_drives_its_own_updates(make_place, world_size):
    spec = job(
        loss=None,
        step="recovery_jobs:driven",
        schedule=None,
        train=training(),
        resources={"workers": world_size},
    )
    reference, place = (make_place(folder, spec) for folder in ("reference", "killed"))
    reference.start()
    strikes = [
        {"moment": "forward", "rank": world_size - 1, "nth": 13, "victim": "self"},
        {"moment": "backward", "rank": 0, "nth": 24, "victim": "all"},
        {"moment": "commit", "rank": 0, "nth": 2, "victim": "launcher"},
    ]
    run_through(place, strikes)
    assert_same(place, reference, world_size, STEPS)
    assert place.events("train")[-1]["count"] == STEPS
