"""Which plain attributes count as counters."""

import math

from torch import nn

from distrib.train.checks.plain_counters import CounterWatch


def test_what_changes_in_each_step_is_found_and_nothing_else():
    model = nn.Module.__new__(type("Own", (nn.Module,), {"__module__": "job"}))
    nn.Module.__init__(model)
    model.count, model.best, model.cached, model.unset = 0, math.inf, 0, math.nan
    watch = CounterWatch({"model": model})
    found = []
    for step in range(3):
        model.count += 1
        model.cached = 7
        model.best = min(model.best, 3.0 + (step > 1))
        found += watch.look()
    assert watch.is_done
    (message,) = found
    assert message.startswith("plain attributes that change in every step are in no checkpoint: model.count; ")
