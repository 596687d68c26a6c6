"""Synthetic experiments: what ranks would measure given known links and a known workload."""

import random

from distrib.scale.all_reduce import Link, Network, Topology, ring_seconds
from distrib.scale.measurement import AllReduceTimes, GradientBucket, MeanMax, MeasuredRun, MeasuredStep
from distrib.scale.result import ExperimentResult, Sample
from distrib.scale.step_cost import exposed_seconds
from distrib.scale.summary import summarize

LINK = Link(5e-4, 8e-8)
FIXED, PER_SAMPLE, OPTIMIZER, DATA = 0.02, 0.002, 0.003, 0.001
BUCKETS = tuple(GradientBucket(1e6, fraction) for fraction in (0.5, 0.65, 0.8, 1.0))
BATCH = 64
SWEEP = [1024 * 4**power for power in range(7)]


def true_parts(workers, mode="strong", link=LINK):
    """Seconds of data, compute, exposed communication and optimizer."""
    samples = BATCH if mode == "weak" else BATCH / workers
    compute = FIXED + PER_SAMPLE * samples
    network = Network(link, link)
    exposed = exposed_seconds(
        BUCKETS,
        compute,
        lambda size: network.all_reduce_seconds(size, Topology(workers)),
    )
    return DATA, compute, exposed if workers > 1 else 0.0, OPTIMIZER


def make_measurement(workers, noise=0.02, mode="strong", num_steps=30, seed=0, link=LINK):
    """What rank 0 would write at one size."""
    source = random.Random(1000 * workers + seed)

    def noisy(seconds):
        return seconds * source.uniform(1 - noise, 1 + noise)

    data, compute, exposed, optimizer = true_parts(workers, mode, link)
    batch = BATCH * (workers if mode == "weak" else 1)
    steps = []
    for number in range(num_steps * 6 // 5):
        is_synced = number % 6 != 5
        parts = [noisy(data), noisy(compute + (exposed if is_synced else 0)), noisy(optimizer)]
        steps.append(MeasuredStep(is_synced, batch, *(MeanMax(part, 1.01 * part) for part in (*parts, sum(parts)))))
    sweep = [AllReduceTimes(size, tuple(noisy(ring_seconds(size, workers, link)) for _ in range(7))) for size in SWEEP]
    return MeasuredRun(
        world_size=workers,
        global_batch_size=batch,
        train_samples=100_000,
        steps_per_epoch=1000,
        accumulate=1,
        device="cpu",
        backend="gloo",
        threads=1,
        hosts=tuple(f"host{rank}" for rank in range(workers)),
        gradients=BUCKETS,
        buckets=BUCKETS if workers > 1 else (),
        steps=tuple(steps),
        sweep=tuple(sweep) if workers > 1 else (),
        peak_memory_bytes=2**28,
        cores_busy=0.25,
    )


def make_result(workers=(1, 2, 4), mode="strong", **settings):
    """What `distrib scale` would write."""
    samples = [
        Sample(workers=size, repeat=repeat, measurement=make_measurement(size, mode=mode, seed=repeat, **settings))
        for repeat in range(3)
        for size in workers
    ]
    return make_result_of(samples, workers, mode)


def make_result_of(samples, workers, mode="strong"):
    """The result of an experiment with these samples."""
    return ExperimentResult(
        job="planted",
        spec="name: planted",
        launcher="local",
        workers=tuple(workers),
        mode=mode,
        steps=30,
        warmup_steps=1,
        repeats=3,
        started=1_790_000_000.0,
        provenance={"platform": "linux x86_64", "num_cpus": 2, "torch": "2.13.0", "distrib": "0.1.0"},
        sizes=summarize(samples, workers),
        samples=tuple(samples),
    )
