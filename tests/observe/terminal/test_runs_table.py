"""Which runs are listed, and in which order."""

import pytest

from distrib.errors import JobError
from distrib.observe.terminal.runs_table import Selection, parse_since, table_lines

ROWS = [
    {
        "id": f"run-{number}",
        "name": "digits",
        "status": status,
        "steps": number,
        "total_steps": 10,
        "started": 1000.0 * number,
        "duration_seconds": 5.0,
        "metrics": metrics,
        "error": None,
    }
    for number, (status, metrics) in enumerate(
        [("finished", {"loss": 0.3, "accuracy": 0.7}), ("failed", {}), ("running", {"loss": 0.1, "accuracy": 0.9})]
    )
]
UNREADABLE = {"id": "broken", "status": "unreadable", "error": {"message": "no [record]\x07"}}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [2, 1, 0]),
        (Selection(limit=2), [2, 1]),
        (Selection(sort="-started"), [0, 1, 2]),
        (Selection(sort="run"), [0, 1, 2]),
        (Selection(sort="status"), [1, 0, 2]),
        (Selection(sort="loss"), [2, 0, 1]),
        (Selection(sort="accuracy"), [2, 0, 1]),
        (Selection(sort="-accuracy"), [0, 2, 1]),
        (Selection(since=900.0), [2, 1]),
        (Selection(metric="accuracy"), [2, 0]),
        (Selection(metric="accuracy>=0.9"), [2]),
        (Selection(metric="loss < 0.2"), [2]),
        (Selection(job="digits", statuses=("failed", "running")), [2, 1]),
        (Selection(job="other"), []),
    ],
)
def test_selections(selection, expected):
    assert [row["id"] for row in selection.apply(ROWS)] == [f"run-{number}" for number in expected]


def test_unreadable_runs_come_last():
    assert Selection().apply([UNREADABLE, *ROWS])[-1] is UNREADABLE


@pytest.mark.parametrize(
    ("text", "start"), [("2 hours", 2800.0), ("90min", 4600.0), ("1970-01-01T01:00+00:00", 3600.0)]
)
def test_since(text, start):
    assert parse_since(text, 10_000.0) == start


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_line_a_run_that_fits_the_terminal(width):
    rows = [
        {**row, "spec": {"optimizer.args.lr": 0.1, "model.args.hidden": "wide " * 9}} for row in [*ROWS, UNREADABLE]
    ]
    lines = table_lines(rows, ["optimizer.args.lr", "model.args.hidden"], width)
    assert len(lines) == 5
    assert max(map(len, lines)) <= width
    assert ("lr" in lines[0].split()) == (width > 60)


@pytest.mark.parametrize(
    ("key", "advice"), [("strated", "did you mean started?"), ("foo", "use one of started, took, steps, status")]
)
def test_a_sort_key_that_no_run_has_is_refused(key, advice):
    with pytest.raises(JobError, match=f"--sort: no run has '{key}'; {advice}"):
        Selection(sort=key).apply(ROWS)
    assert len(Selection(sort=key).apply(ROWS[1:2])) == 1  # no run has been evaluated yet


def test_a_metric_that_no_run_has():
    assert Selection(metric="acc >= 0.5").missing_metric(ROWS) == "no run has acc; there are accuracy, loss"
    assert Selection(metric="accuracy >= 2").missing_metric(ROWS) is None
    assert Selection(metric="acc").missing_metric(ROWS[1:2]) is None


def test_lists_are_shown_as_arguments():
    rows = [{**ROWS[0], "spec": {"script.args": ["--epochs", "30", "a b"]}}]
    assert "--epochs 30 'a b'" in table_lines(rows, ["script.args"], None)[1]
