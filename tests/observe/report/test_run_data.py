"""What a report shows of runs that were continued, without a browser."""

import pytest

from distrib.observe.page.document import figures
from distrib.observe.report.charts import make_charts
from distrib.observe.report.run_data import collect
from distrib.runs.events import EventWriter
from distrib.runs.record import update_record
from distrib.runs.run import Run


@pytest.fixture
def write(run):
    """Writes an event of an attempt of the run, at this many seconds after its start."""
    update_record(run.folder, started=1000.0)

    def write(kind, attempt, step, seconds, **fields):
        with EventWriter(run.layout.metrics_file, attempt, clock=lambda: 1000.0 + seconds) as events:
            events.write(kind, step=step, epoch=0, samples=8 * step, **fields)

    return write


@pytest.fixture
def continued(run, write):
    """A run that stopped after 6 s, was continued after 100 s, and then was restarted by its launcher, for 10 s."""
    write("start", 0, 0, 4)
    write("train", 0, 1, 5, loss=1.0)
    write("stop", 0, 1, 6)
    write("start", 1, 1, 106)
    write("train", 1, 2, 107, loss=0.5)
    write("restart", 2, 1, 108)
    write("start", 2, 1, 117)
    write("train", 2, 2, 118, loss=0.25)
    return run


def test_the_time_between_two_launches_is_left_out(continued):
    data = collect(continued)
    assert data.elapsed(data.train["time"]).tolist() == [5.0, 7.0, 18.0]
    assert float(data.elapsed(1006.0)) == 6.0


def test_each_of_several_runs_has_its_values_below_the_charts(continued):
    pytest.importorskip("matplotlib")
    other = Run(continued.folder.with_name("digits-2"))
    other.folder.mkdir()
    for name in ("run.json", "metrics.jsonl"):
        (other.folder / name).write_bytes((continued.folder / name).read_bytes())
    (loss, *_) = make_charts([collect(continued), collect(other)])
    page = figures([loss])
    caption = page[page.index("readout") :]
    assert "digits-1 0.25 to 1; digits-2 0.25 to 1" in caption
    assert "trained again later" not in caption
