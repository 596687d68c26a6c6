"""The jobs that tests/train/test_faults.py runs for real, by name."""

from exact_reference import global_batch

BASE = {
    "model": "fault_jobs:Linear",
    "data": {"train": "fault_jobs:Points", "batch_size": 8},
    "loss": "torch.nn:CrossEntropyLoss",
    "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}},
    "train": {"epochs": 2, "log_every": 1},
}


def spec(world_size, **changes):
    """The job with some sections changed; dicts are merged into `data` and `train`, None removes."""
    merged = {**BASE, "resources": {"workers": world_size}}
    for name, change in changes.items():
        merged[name] = {**merged[name], **change} if name in ("data", "train") else change
    return lambda folder: {name: value for name, value in merged.items() if value is not None}


def points(**args):
    return {"target": "fault_jobs:Points", "args": args}


LOSSES = {
    "ignored": {"loss": {"target": "torch.nn:CrossEntropyLoss", "args": {"ignore_index": 255}}, "ignored": 255},
    "ignored-unasked": {"loss": "torch.nn:CrossEntropyLoss", "ignored": -100},
    "ignored-late": {"loss": "torch.nn:CrossEntropyLoss", "ignored": -100, "spared": global_batch(22, 8, 0, 0)},
    "weighted": {"loss": "fault_jobs:Weighted"},
    "sum": {"loss": {"target": "torch.nn:CrossEntropyLoss", "args": {"reduction": "sum"}}},
    "proxies": {"loss": "fault_jobs:Proxies"},
}


def with_loss(name, world_size):
    loss = LOSSES[name]
    data = points(ignored=loss.get("ignored"), spared=list(loss.get("spared", ())))
    evaluation = points(ignored=loss.get("ignored"), seed=1, num_samples=10)
    return spec(world_size, loss=loss["loss"], data={"train": data, "eval": evaluation})


def repeating(world_size, says_so):
    collate = {"target": "fault_jobs:Repeat", "args": {"says_so": says_so}}
    return spec(world_size, loss="fault_jobs:squared", data={"collate": collate})


def stepping(step, **changes):
    return spec(2, loss=None, step=f"fault_jobs:{step}", **changes)


SHARE = {"share": "fault_jobs:Share"}


def freezing(world_size, at, trains_first, **changes):
    model = {"target": "fault_jobs:Freezing", "args": {"at": at, "trains_first": trains_first}}
    return spec(world_size, model=model, ddp={"find_unused_parameters": True}, **changes)


def holding(kind):
    return spec(2, model={"target": "fault_jobs:Holding", "args": {"kind": kind}})


F1 = {"target": "torchmetrics.classification:MulticlassF1Score", "args": {"num_classes": 3}}


def drifting(world_size, every="5 steps", drift="stop"):
    """Rank 1 changes one weight by 1e-6 in the fourth step."""
    return spec(world_size, model="fault_jobs:Nudged", checkpoint={"every": every}, failures={"drift": drift})


FAULT_SPECS = {
    **{f"fault-drift-{size}": drifting(size) for size in (2, 3)},
    "fault-longer-data": spec(3, data={"train": "fault_jobs:LongerOnRank1"}),
    "fault-other-data": spec(2, data={"train": "fault_jobs:OtherOnRank1"}),
    "fault-own-generator": spec(2, data={"train": "fault_jobs:OwnGenerator"}),
    "fault-warning": spec(3, model="fault_jobs:Warning"),
    "fault-wider-model": spec(3, model="fault_jobs:WiderOnRank1"),
    "fault-reordered-model": spec(3, model="fault_jobs:ReorderedOnRank1"),
    "fault-drawn-1": spec(1, data={"train": "fault_jobs:Drawn", "loader_workers": 1}),
    "fault-drawn-3": spec(3, data={"train": "fault_jobs:Drawn"}),
    **{f"fault-noisy-{size}": spec(size, optimizer="fault_jobs:Noisy") for size in (1, 3)},
    "fault-drift-unsaved": drifting(2, every="never"),
    "fault-drift-warn": drifting(2, every="2 steps", drift="warn"),
    "fault-drift-own-3": spec(3, loss=None, step="fault_jobs:with_own_optimizer", checkpoint={"every": "5 steps"}),
    **{f"fault-{name}-{size}": with_loss(name, size) for name in LOSSES for size in (1, 3)},
    **{f"fault-repeating-{size}": repeating(size, True) for size in (1, 3)},
    "fault-repeating-silently": repeating(3, False),
    "fault-unknown": spec(2, loss="fault_jobs:summed"),
    "fault-eval-mode": spec(1, model="fault_jobs:pretrained"),
    "fault-extra-state-1": spec(1, model="fault_jobs:Scaled", checkpoint={"every": "1 epoch"}),
    "fault-no-outputs": stepping("silent", data={"eval": points(seed=1)}, metrics={"f1": F1}),
    "fault-ignoring": stepping(
        "ignoring",
        data={"train": points(ignored=255, num_samples=8), "eval": points(ignored=255, num_samples=11, seed=1)},
    ),
    "fault-detached": stepping("detached"),
    "fault-backward": spec(1, loss=None, step="fault_jobs:backward"),
    **{f"fault-{kind}": holding(kind) for kind in ("expanded", "sparse", "short")},
    **{
        f"fault-growing-{size}": spec(
            size, model="fault_jobs:Growing", data={"eval": points(seed=1)}, checkpoint={"every": "1 epoch"}
        )
        for size in (1, 3)
    },
    "fault-counting": spec(1, model="fault_jobs:Counting"),
    "fault-parallel": spec(1, model="fault_jobs:parallel"),
    **{f"fault-freezing-{size}": freezing(size, 3, True) for size in (1, 3)},
    "fault-unfreezing": freezing(1, 4, False, train={"accumulate": 2}),
    **{
        f"fault-share-{size}": spec(size, data={"eval": points(seed=1, num_samples=10)}, metrics=SHARE)
        for size in (1, 3)
    },
    "fault-misspelled": stepping("misspelled"),
    **{f"fault-frozen-{size}": spec(size, model="fault_jobs:Frozen", loss="fault_jobs:Proxies") for size in (1, 3)},
    "fault-unused": spec(2, model="fault_jobs:Sometimes", train={"accumulate": 2}),
    "fault-outside": stepping("with_outside"),
}
