"""The jobs that tests/train runs for real, by name."""

import math

from exact_reference import global_batch, steps_of_epoch

WORLD_SIZES = (1, 2, 3, 5)
NUM_SAMPLES = 47
BATCH_SIZE = 9
STEPS_PER_EPOCH = steps_of_epoch(NUM_SAMPLES, BATCH_SIZE)
SEED = 3
LOSS_STEPS = 120
TOKEN_STEPS = 24
LOG_EVERY = 7
CLIP_NORM = 0.65
LARGE_CLIP_NORM = 300.0
LAST_STEP_OF_FIRST_EPOCH = STEPS_PER_EPOCH - 1

WEIGHTLESS = sorted(
    global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, 0)[: BATCH_SIZE // 2]
    + global_batch(NUM_SAMPLES, BATCH_SIZE, SEED, LAST_STEP_OF_FIRST_EPOCH)
)
"""Samples without weight: rank 0's of 2 in the first step, and everyone's in the last step of the first epoch."""

ACCURACY = {
    "target": "torchmetrics.classification:MulticlassAccuracy",
    "args": {"num_classes": 3, "average": "micro", "ignore_index": -1},
}
AUROC = {
    "target": "torchmetrics.classification:MulticlassAUROC",
    "args": {"num_classes": 3, "thresholds": None, "ignore_index": -1},
}
METRICS = {"accuracy": ACCURACY, "auroc": AUROC, "logits": "exact_jobs:FirstLogits"}
POINTS = {"target": "exact_jobs:Points", "args": {"num_samples": NUM_SAMPLES}}
CROSS_ENTROPY = "torch.nn:CrossEntropyLoss"


def recording(folder, num_steps="$steps", **args):
    """The recording optimizer."""
    return {"target": "exact_jobs:recording", "args": {"folder": str(folder), "num_steps": num_steps, **args}}


def evaluation_points(num_samples):
    """Other points than those trained on."""
    return {"target": "exact_jobs:Points", "args": {"num_samples": num_samples, "seed": 1}}


def with_loss(world_size, accumulate=1, steps=LOSS_STEPS):
    """A job with `loss:`, evaluated on 7 samples."""
    return lambda folder: {
        "model": "exact_jobs:Mlp",
        "data": {"train": POINTS, "eval": evaluation_points(7), "batch_size": BATCH_SIZE},
        "loss": CROSS_ENTROPY,
        "metrics": METRICS,
        "optimizer": recording(folder, lr=0.05, momentum=0.9),
        "train": {"steps": steps, "seed": SEED, "accumulate": accumulate, "log_every": LOG_EVERY},
        "resources": {"workers": world_size},
    }


def with_step(world_size, accumulate=1):
    """A job with `step:` whose weights are tokens, evaluated on 2 samples of which one is without weight."""
    train = {"num_samples": NUM_SAMPLES, "weightless": WEIGHTLESS}
    evaluation = {"num_samples": 2, "weightless": [1], "seed": 1}
    return lambda folder: {
        "model": "exact_jobs:Mlp",
        "data": {
            "train": {"target": "exact_jobs:Sentences", "args": train},
            "eval": {"target": "exact_jobs:Sentences", "args": evaluation},
            "batch_size": BATCH_SIZE,
        },
        "step": "exact_jobs:token_mean",
        "metrics": METRICS,
        "optimizer": recording(folder, lr=0.2),
        "train": {"steps": TOKEN_STEPS, "seed": SEED, "accumulate": accumulate, "log_every": 1},
        "resources": {"workers": world_size},
    }


def with_unused_parameters(folder):
    """The same with parameters that no step uses, and a loss that is finite where its gradient is NaN."""
    return {
        **with_step(2)(folder),
        "model": "exact_jobs:Unused",
        "step": "exact_jobs:safe_token_mean",
        "ddp": {"find_unused_parameters": True},
    }


def augmented(loader_workers):
    """A job with random augmentation, dropout and accumulation."""
    return lambda folder: {
        "model": {"target": "exact_jobs:Mlp", "args": {"dropout": 0.3}},
        "data": {
            "train": {"target": "exact_jobs:Augmented", "args": {"num_samples": NUM_SAMPLES}},
            "eval": evaluation_points(7),
            "batch_size": BATCH_SIZE,
            "loader_workers": loader_workers,
        },
        "loss": CROSS_ENTROPY,
        "metrics": {"accuracy": ACCURACY},
        "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.01}},
        "train": {"epochs": 3, "accumulate": 2, "log_every": 2},
        "resources": {"workers": 2},
    }


def normalized(folder):
    """A job with BatchNorm, a part frozen in evaluation mode and a schedule by an evaluation metric."""
    plateau = {"mode": "max", "factor": 0.5, "patience": 0}
    return {
        "model": "exact_jobs:Normalized",
        "data": {
            "train": {"target": "exact_jobs:Points", "args": {"num_samples": 44}},
            "eval": evaluation_points(17),
            "batch_size": 8,
        },
        "loss": CROSS_ENTROPY,
        "metrics": {"accuracy": ACCURACY},
        "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
        "schedule": {
            "target": "torch.optim.lr_scheduler:ReduceLROnPlateau",
            "args": plateau,
            "every": "eval",
            "metric": "accuracy",
        },
        "train": {"epochs": 6, "log_every": 1},
        "resources": {"workers": 2},
    }


def clipped(folder):
    """A job whose gradients are clipped, with a schedule by steps and an optimizer of some of the parameters."""
    schedule = {"target": "torch.optim.lr_scheduler:CosineAnnealingLR", "args": {"T_max": "$steps"}}
    return {
        "model": "exact_jobs:Mlp",
        "data": {"train": POINTS, "batch_size": BATCH_SIZE},
        "loss": CROSS_ENTROPY,
        "optimizer": recording(folder, lr=0.1, optimizer="AdamW", only="layers.3"),
        "schedule": schedule,
        "train": {"epochs": 2, "seed": SEED, "clip_norm": CLIP_NORM, "log_every": 1, "accumulate": 2},
        "resources": {"workers": 2},
    }


def compiled(folder):
    """A job that uses torch's compiler."""
    return {**with_loss(2, steps=6)(folder), "model": "exact_jobs:Compiled"}


def mixed(precision, scale, schedule):
    """A job in fp16 or bf16."""
    return lambda folder: {
        "model": {"target": "exact_jobs:Mlp", "args": {"dtype": "float32", "hidden": 32}},
        "data": {
            "train": {"target": "exact_jobs:Points", "args": {"num_samples": 64, "dtype": "float32"}},
            "batch_size": 16,
        },
        "step": {"target": "exact_jobs:scaled_loss", "args": {"scale": scale}},
        "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.05}},
        **schedule,
        "train": {"epochs": 10, "precision": precision, "log_every": 1},
        "resources": {"workers": 2},
    }


def mixed_and_clipped(folder):
    """A job in fp16 with clipping and an optimizer that records from the first step on."""
    spec = mixed("fp16", OVERFLOWING, {})(folder)
    optimizer = recording(folder, num_steps=1, optimizer="AdamW", lr=0.05)
    return {**spec, "optimizer": optimizer, "train": {**spec["train"], "clip_norm": LARGE_CLIP_NORM}}


def failing(world_size, model="exact_jobs:Mlp", train=POINTS, loader_workers=0):
    """A job that fails."""
    return lambda folder: {
        "model": model,
        "data": {"train": train, "batch_size": BATCH_SIZE, "loader_workers": loader_workers},
        "loss": CROSS_ENTROPY,
        "optimizer": {"target": "torch.optim:SGD", "args": {"lr": 0.1}},
        "train": {"epochs": 2, "seed": SEED},
        "resources": {"workers": world_size},
    }


POISONED = 13
STEP_LR = {"schedule": {"target": "torch.optim.lr_scheduler:StepLR", "args": {"step_size": 2}, "every": "epoch"}}
OVERFLOWING = math.ldexp(1.0, 10)

SPECS = {
    **{f"loss-{world_size}": with_loss(world_size) for world_size in WORLD_SIZES},
    "loss-3-accumulate-2": with_loss(3, accumulate=2, steps=24),
    "loss-3-again": with_loss(3),
    **{f"step-{world_size}-accumulate-2": with_step(world_size, accumulate=2) for world_size in WORLD_SIZES},
    "step-3": with_step(3),
    "step-2-unused": with_unused_parameters,
    "augmented": augmented(0),
    "augmented-again": augmented(0),
    "augmented-loader": augmented(2),
    "normalized": normalized,
    "clipped": clipped,
    "compiled": compiled,
    "bf16": mixed("bf16", 1.0, STEP_LR),
    "fp16": mixed("fp16", OVERFLOWING, {}),
    "fp16-clipped": mixed_and_clipped,
    "poisoned": failing(2, train={"target": "exact_jobs:Points", "args": {"num_samples": 47, "poisoned": POISONED}}),
    "faulty": failing(3, model="exact_jobs:Faulty"),
    "unreadable": failing(2, train={"target": "exact_jobs:Unreadable", "args": {"num_samples": 47}}, loader_workers=1),
}
