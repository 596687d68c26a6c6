"""Ray's error logs on the hosts of a cluster, which a dashboard may serve."""

import ray.util.state

from distrib.launch.ray.cluster.host_logs import describe_error_logs

LOGS = {"a": "No module named 'x'\n\nended\n", "b": ""}


def test_the_last_lines_are_shown_by_host(monkeypatch):
    def get_log(*, node_id, filename, tail, timeout):
        assert filename == "raylet.err"
        if node_id not in LOGS:
            raise ConnectionError("no dashboard")
        yield LOGS[node_id]

    monkeypatch.setattr(ray.util.state, "get_log", get_log)
    text = describe_error_logs({"a": "host1 (10.0.0.1)", "b": "host2 (10.0.0.2)", "c": "host3 (10.0.0.3)"})
    assert text == "the last lines of Ray's error log on host1 (10.0.0.1):\n  No module named 'x'\n  ended"


def test_without_a_dashboard_nothing_is_shown():
    assert describe_error_logs({}) == ""
