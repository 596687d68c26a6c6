"""Experiments whose truth is planted: what ranks would have measured on links and with compute that are known."""

import random

from distrib.scale.cost import Bucket, Link, Network, Topology, exposed_seconds, ring_seconds
from distrib.scale.experiment import FORMAT
from distrib.scale.results import summarize

LINK = Link(5e-4, 8e-8)
FIXED, PER_SAMPLE, OPTIMIZER, DATA = 0.02, 0.002, 0.003, 0.001
BUCKETS = [(1e6, 0.5), (1e6, 0.65), (1e6, 0.8), (1e6, 1.0)]
BATCH = 64
SWEEP = [1024 * 4**power for power in range(7)]


def true_parts(workers, mode="strong", link=LINK):
    """Seconds of data, compute, exposed communication and optimizer."""
    samples = BATCH if mode == "weak" else BATCH / workers
    compute = FIXED + PER_SAMPLE * samples
    network = Network(link, link)
    exposed = exposed_seconds(
        [Bucket(*bucket) for bucket in BUCKETS],
        compute,
        lambda size: network.all_reduce_seconds(size, Topology(workers)),
    )
    return DATA, compute, exposed if workers > 1 else 0.0, OPTIMIZER


def make_measurement(workers, noise=0.02, mode="strong", num_steps=30, seed=0, link=LINK):
    """What `train.measure` would write."""
    source = random.Random(1000 * workers + seed)

    def noisy(seconds):
        return seconds * source.uniform(1 - noise, 1 + noise)

    data, compute, exposed, optimizer = true_parts(workers, mode, link)
    batch = BATCH * (workers if mode == "weak" else 1)
    steps = []
    for number in range(num_steps * 6 // 5):
        is_synced = number % 6 != 5
        parts = [noisy(data), noisy(compute + (exposed if is_synced else 0)), noisy(optimizer)]
        named = dict(zip(("data", "compute", "optimizer", "seconds"), (*parts, sum(parts)), strict=True))
        steps.append({"is_synced": is_synced, "samples": batch, **{k: [v, v * 1.01] for k, v in named.items()}})
    sweep = [
        {"num_bytes": size, "seconds": [noisy(ring_seconds(size, workers, link)) for _ in range(7)]} for size in SWEEP
    ]
    return {
        "world_size": workers,
        "global_batch_size": batch,
        "train_samples": 100_000,
        "steps_per_epoch": 1000,
        "accumulate": 1,
        "device": "cpu",
        "backend": "gloo",
        "threads": 1,
        "hosts": [f"host{rank}" for rank in range(workers)],
        "gradients": [list(bucket) for bucket in BUCKETS],
        "buckets": [list(bucket) for bucket in BUCKETS] if workers > 1 else [],
        "steps": steps,
        "sweep": sweep if workers > 1 else [],
        "peak_memory_bytes": 2**28,
        "cores_busy": 0.25,
    }


def make_result(workers=(1, 2, 4), mode="strong", **settings):
    """What `distrib scale` would write."""
    samples = [
        {"workers": size, "repeat": repeat, "measurement": make_measurement(size, mode=mode, seed=repeat, **settings)}
        for repeat in range(3)
        for size in workers
    ]
    sizes = summarize(samples, workers)
    return {"format": FORMAT, "job": "planted", "mode": mode, "launcher": "local", "sizes": sizes, "samples": samples}
