"""Metrics that are scraped while a job trains agree with its events."""

import re
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distrib.errors import JobError
from distrib.observe.metrics.prometheus import PrometheusServer
from tests.support.lab_runs import NUM_STEPS, Project

pytestmark = pytest.mark.timeout(120)


def scrape(url):
    """The samples at `url`: values by metric and own label."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            own = [value for name, value in sample.labels.items() if name not in ("run", "job")]
            assert (sample.labels["run"], sample.labels["job"]) == ("run", "paced")
            found[sample.name, own[0] if own else ""] = sample.value
    return found


@pytest.fixture
def project(tmp_path):
    made = Project(None, tmp_path / "project", workers=2)
    yield made
    made.close()


def test_scraped_values_are_those_of_the_event_of_that_step(project):
    project.pace(0.1)
    launch = project.start("--metrics-port", "0")
    url = launch.wait_until(lambda: re.search(r"metrics at (http://127\.0\.0\.1:\d+/metrics)\n", launch.output))[1]
    scrapes = []

    def sees_a_checkpoint():
        scrapes.append(scrape(url) if project.steps() else {})
        return scrapes[-1].get(("distrib_checkpoint_step", ""), 0) > 28

    launch.wait_until(sees_a_checkpoint)
    project.pace(0)
    assert launch.wait() == 0, launch.output
    with pytest.raises(urllib.error.URLError):
        scrape(url)
    events = {event["step"]: event for event in project.events("train")}
    seen = [found for found in scrapes if ("distrib_step", "") in found]
    assert len({found["distrib_step", ""] for found in seen}) > 5
    for found in seen:
        event = events[found["distrib_step", ""]]
        for metric, field in {"loss": "loss", "samples": "samples", "data_wait_seconds": "data_seconds"}.items():
            assert found[f"distrib_{metric}", ""] == event[field]
        assert found["distrib_samples_per_second", ""] == event["samples_per_second"]
        assert found["distrib_learning_rate", "default"] == event["lr"]
        assert (found["distrib_running", ""], found["distrib_workers", ""]) == (1, 2)
        for rank in range(2):
            assert found["distrib_rank_step_seconds", str(rank)] == event["rank_step_seconds"][rank] > 0.1
            assert found["distrib_rank_data_wait_seconds", str(rank)] == event["rank_data_seconds"][rank]
        assert found["distrib_total_steps", ""] == NUM_STEPS
        assert found["distrib_restarts", ""] == 0
    saved = {event["step"]: event for event in project.events("checkpoint")}
    last = seen[-1]
    assert last["distrib_checkpoint_seconds", ""] == saved[last["distrib_checkpoint_step", ""]]["save_seconds"]


def test_a_port_in_use_is_refused_before_anything_starts(project):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(JobError, match=rf"--metrics-port: port {port} of 127.0.0.1 is in use"):
            PrometheusServer(port)
        launch = project.start("--metrics-port", port)
        assert launch.wait() == 2
    assert f"port {port} of 127.0.0.1 is in use; choose another" in launch.output
    assert not project.layout.folder.exists()


def test_a_port_that_does_not_exist():
    with pytest.raises(JobError, match="cannot be used"):
        PrometheusServer(70000)
