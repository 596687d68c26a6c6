"""Steps that drive their own updates, killed between and inside of their updates: the same bits as without."""

import pytest

from tests.support.recovery_runs import assert_same, job, run_through

pytestmark = pytest.mark.timeout(120)

STEPS = 30
UNLABELED = {"target": "session_jobs:Unlabeled", "args": {"num_samples": 101}}
POINTS = {"target": "exact_jobs:Points", "args": {"num_samples": 101}}
HALF_POINTS = {"target": "exact_jobs:Points", "args": {"num_samples": 101, "dtype": "float32"}}
SERIES = {"target": "session_jobs:Series", "args": {"num_lanes": 8, "length": 12}}
ADAM = {"target": "torch.optim:Adam", "args": {"lr": 0.01}}
SGD = {"target": "torch.optim:SGD", "args": {"lr": 0.1, "momentum": 0.9}}
LBFGS = {"target": "torch.optim:LBFGS", "args": {"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}}
NETWORKS = {
    "critic": {**ADAM, "parameters": ["critic.*"]},
    "generator": {**SGD, "parameters": ["generator.*"]},
}
MUON = {
    "matrices": {"target": "torch.optim:Muon", "args": {"lr": 0.02}, "parameters": ["*.weight"]},
    "rest": {**ADAM, "parameters": ["*.bias"]},
}
KINDS = {
    "gan": (2, "Gan", "named_gan", UNLABELED, NETWORKS),
    "contrastive": (3, "Encoder", "contrastive", UNLABELED, SGD),
    "lbfgs": (4, "Mlp", "by_function", POINTS, LBFGS),
    "sam": (3, "Mlp", "by_function", POINTS, {"target": "session_jobs:Sam"}),
    "muon": (2, "Mlp", "half", POINTS, MUON),
    "recurrent": (4, "Recurrent", "recurrent", SERIES, SGD),
    "fp16": (3, "Mlp", {"target": "session_jobs:half", "args": {"scale": 32.0}}, HALF_POINTS, SGD),
}
NAMES = [pytest.param(kind, marks=pytest.mark.long) if kind == "fp16" else kind for kind in KINDS]


def make_job(kind):
    world_size, model, step, data, optimizers = KINDS[kind]
    order = "session_jobs:in_step" if data is SERIES else "shuffle"
    name = "optimizer" if "target" in optimizers else "optimizers"
    half = {"dtype": "float32"} if kind == "fp16" else {}
    return job(
        model={"target": "recovery_jobs:struck", "args": {"name": model, **half}},
        data={"train": data, "eval": None, "order": order},
        loss=None,
        step=f"session_jobs:{step}" if isinstance(step, str) else step,
        metrics=None,
        schedule=None,
        train={"steps": STEPS, "log_every": 1, "precision": "fp16" if half else "fp32"},
        resources={"workers": world_size},
        checkpoint={"best": None, "every": "7 steps"},
        **{"optimizer": None, name: optimizers},
    )


@pytest.mark.parametrize("kind", NAMES)
def test_a_killed_run_comes_to_the_same_bits(make_place, kind):
    world_size = KINDS[kind][0]
    reference, place = (make_place(folder, make_job(kind)) for folder in ("reference", "killed"))
    reference.start()
    nth = 9 if kind == "fp16" else 23  # its first updates overflow and are skipped
    strikes = [
        {"moment": "update", "rank": world_size - 1, "nth": nth, "victim": "self"},
        {"moment": "updated", "rank": 0, "nth": 5, "victim": "launcher"},
    ]
    run_through(place, strikes)
    assert_same(place, reference, world_size, STEPS, is_shuffled=kind != "recurrent")
    weights = sorted(path.name for path in reference.folder.glob("weights-*.pt"))
    assert len(weights) == STEPS


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize(("kind", "order"), [("gan", "order_jobs:bucketed"), ("recurrent", "session_jobs:in_step")])
def test_a_killed_run_comes_to_the_same_bits_on_ray(make_place, kind, order):
    """With averages of the weights; the reference is a local run."""
    spec = make_job(kind)
    spec["data"]["order"] = order
    spec["resources"] = {"workers": 2, "device": "cpu"}
    spec["callbacks"] = [{"target": "distrib.callbacks:Ema", "args": {"decay": 0.9}}]
    reference = make_place("reference", spec)
    reference.start()
    place = make_place("killed", spec, is_program=True)
    place.environment["RAY_USAGE_STATS_ENABLED"] = "0"
    place.plan([{"moment": "update", "rank": 1, "nth": 19, "victim": "self"}])
    place.finish("--on", "ray", timeout=100)
    assert not list(place.strikes.iterdir())
    assert_same(place, reference, 2, STEPS, is_shuffled=False)
    assert place.events("restart")
