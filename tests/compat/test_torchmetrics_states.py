"""States of metrics of every kind are merged over ranks."""

import pytest
import torch
from torchmetrics import CatMetric, MaxMetric, MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from distrib.compat import torchmetrics_states
from distrib.compat.messages import without_compute_warning


def rank_states(make, values):
    """The states of the metrics that each rank has updated with its own values."""
    states = []
    for batch in values:
        metric = make()
        for value in batch:
            metric.update(value)
        states.append(torchmetrics_states.states_of(metric))
    return states


@pytest.mark.relies_on("torchmetrics.Metric._reductions")
@pytest.mark.parametrize("has_reductions", [True, False])
@pytest.mark.parametrize(("make", "expected"), [(MeanMetric, 3.0), (MaxMetric, 6.0), (CatMetric, [1.0, 2.0, 6.0])])
def test_states_of_two_ranks_make_one(monkeypatch, make, expected, has_reductions):
    if not has_reductions:
        monkeypatch.setattr(torchmetrics_states, "reductions", lambda metric: None)
        if make is MaxMetric:
            pytest.skip("merge_state refuses it, which is why the reductions are read")
    whole = make()
    torchmetrics_states.merge(whole, rank_states(make, [[1.0, 2.0], [6.0]]), [2, 1])
    with without_compute_warning():
        value = whole.compute()
    assert value.tolist() == pytest.approx(expected)


class _Peerless(Metric):
    """Fails where torchmetrics synchronizes by itself."""

    def __init__(self):
        super().__init__(distributed_available_fn=lambda: pytest.fail("torchmetrics synchronizes"))
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value):
        self.total += value

    def compute(self):
        return self.total


def test_torchmetrics_synchronizes_nothing_itself():
    metric = _Peerless()
    list(torchmetrics_states.metrics_of(metric))
    metric.update(3.0)
    assert metric.compute() == 3.0


def test_a_collection_consists_of_its_metrics():
    metrics = MetricCollection([MeanMetric(), MulticlassAccuracy(num_classes=3)])
    kinds = {type(metric) for metric in torchmetrics_states.metrics_of(metrics)}
    assert kinds == {MeanMetric, MulticlassAccuracy}
