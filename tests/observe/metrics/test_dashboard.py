"""The Grafana dashboard asks for metrics that exist, and leaves none out."""

import json
import re
from pathlib import Path

from distrib.observe.metrics.definitions import METRICS, RUN_LABELS

FILE = Path(__file__).parents[3] / "cluster" / "grafana.json"


def test_every_metric_is_shown_and_every_one_shown_exists():
    dashboard = json.loads(FILE.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {f"distrib_{name}" for query in queries for name in re.findall(r"\(ray_\)\?distrib_(\w+)", query)}
    known = {metric.name for metric in METRICS}
    assert asked <= known
    assert known - asked == {"distrib_epoch", "distrib_samples"}


def test_legends_name_labels_that_the_metrics_have():
    labels = {*RUN_LABELS, *(metric.label for metric in METRICS)}
    legends = re.findall(r"\{\{(\w+)\}\}", FILE.read_text())
    assert legends
    assert set(legends) <= labels
