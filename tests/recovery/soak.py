"""Kills at random moments, as many as wanted: `python -m tests.recovery.soak 200 [SEED]`.

200 kills are five in each of 40 runs: every kind of model and state of `SPECS` on one to four ranks. Each run is killed
on its way to its end and must come to what an uninterrupted one came to. A run that does not is left in its folder, and
its seed is printed: `python -m tests.recovery.soak 5 SEED` repeats it.
"""

import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.support.command_server import CommandServer
from tests.support.recovery_runs import (
    SUPPORT,
    Place,
    assert_same,
    choose_moments,
    job,
    make_strikes,
    run_through,
)

KILLS_PER_RUN = 5

sys.path.append(str(SUPPORT))


def twins(*kinds):
    """A model with these kinds of state."""
    return {"model": {"target": "recovery_jobs:FragileTwins", "args": {"kinds": list(kinds)}}}


def optimizer(name, **args):
    """An optimizer of torch."""
    return {"target": f"torch.optim:{name}", "args": {"lr": 0.01, **args}}


def sgd(**args):
    """SGD at the rate that suits it."""
    return optimizer("SGD", **{"lr": 0.05, **args})


SPECS = {
    "plain": {},
    "normalized": {"model": "recovery_jobs:FragileNorm", "data": {"batch_size": 13}},
    "loaded": {
        "data": {"train": {"target": "recovery_jobs:Augmented", "args": {"num_samples": 101}}, "loader_workers": 1},
        "train": {"accumulate": 2},
    },
    "momentum": {
        "optimizer": sgd(momentum=0.9),
        "schedule": {
            "target": "torch.optim.lr_scheduler:OneCycleLR",
            "args": {"max_lr": 0.2, "total_steps": "$steps"},
        },
    },
    "channels-last": {**twins("layout"), "optimizer": sgd(momentum=0.9, nesterov=True)},
    "made-in-forward": {**twins("table"), "optimizer": optimizer("RMSprop", momentum=0.5)},
    "teacher": twins("teacher"),
    "extra-state": {**twins("extra"), "optimizer": optimizer("Adam", amsgrad=True)},
    "loss": {"loss": "recovery_jobs:Proxies", "optimizer": sgd(momentum=0.9)},
    "everything": {**twins("layout", "teacher", "table", "extra"), "loss": "recovery_jobs:Proxies"},
}


def soak(num_kills, first_seed, folder):
    """Runs until there were `num_kills` kills; returns the seeds of the runs that went wrong."""
    server, references, failed = CommandServer(), {}, []
    try:
        for seed in range(first_seed, first_seed + -(-num_kills // KILLS_PER_RUN)):
            if not _try(server, references, seed, folder):
                failed.append(seed)
    finally:
        server.close()
    return failed


def _try(server, references, seed, folder):
    world_size, name = 1 + seed % 4, list(SPECS)[seed // 4 % len(SPECS)]
    spec = job(**SPECS[name], resources={"workers": world_size})
    if (name, world_size) not in references:
        reference = references[name, world_size] = Place(server, folder / f"{name}-{world_size}", spec)
        reference.finish()
    place = Place(server, folder / f"seed-{seed}", spec)
    strikes = make_strikes(seed, choose_moments(seed, KILLS_PER_RUN))
    started = time.monotonic()
    try:
        run_through(place, strikes)
        assert_same(place, references[name, world_size], world_size, batch_size=spec["data"]["batch_size"])
    except AssertionError:
        traceback.print_exc()
        print(f"seed {seed}: {name} at {world_size} ranks FAILED, see {place.folder}: {strikes}", flush=True)
        return False
    finally:
        place.close()
    hits = ", ".join(f"{strike['moment']}/{strike['victim']}" for strike in strikes)
    print(f"seed {seed}: {name} at {world_size} ranks, {time.monotonic() - started:.1f} s: {hits}", flush=True)
    shutil.rmtree(place.folder)
    return True


def main():
    num_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    folder = Path(tempfile.mkdtemp(prefix="distrib-soak-"))
    failed = soak(num_kills, seed, folder)
    if failed:
        sys.exit(f"{len(failed)} runs went wrong, those of the seeds {failed}; see {folder}")
    shutil.rmtree(folder)
    print(f"all runs with {num_kills} kills came to the same bits")


if __name__ == "__main__":
    main()
