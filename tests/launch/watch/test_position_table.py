"""The table of the ranks' positions that other programs read while a run is running."""

import json
import time

import pytest

from distrib.launch.watch.position_table import RecordedPositions
from distrib.observe.summary import summarize
from distrib.runs.layout import RunLayout
from distrib.runs.record import create_record, update_record
from distrib.runs.run import Run
from distrib.train.phases import Phase, Position


class Positions:
    """Made-up positions."""

    def __init__(self, *phases):
        now = time.monotonic_ns()
        self.positions = {rank: Position(7 * rank, phase, now - 2 * 10**9) for rank, phase in enumerate(phases)}

    def read(self):
        return self.positions

    def cpu_seconds(self):
        return {}


def test_status_has_the_positions_of_a_running_run(tmp_path):
    create_record(tmp_path, name="digits", request={}, schedule=None, provenance={})
    run, layout = Run(tmp_path), RunLayout(tmp_path)
    table = RecordedPositions(
        Positions(Phase.START, Phase.EVALUATION), layout, lambda: {0: "host1", 1: "host2"}, is_script=False
    )
    before = time.time()
    table.read()
    first, second = summarize(run, None)["ranks"]
    assert (first["rank"], first["host"], first["step"], first["phase"]) == (0, "host1", None, "start")
    assert (second["rank"], second["host"], second["step"], second["phase"]) == (1, "host2", 7, "evaluation")
    assert second["compute_seconds"] is None
    assert before - 3 < second["since"] <= time.time() - 2
    written = layout.positions_file.read_text()
    table.read()
    assert layout.positions_file.read_text() == written  # not at every look
    update_record(tmp_path, status="failed")
    assert summarize(Run(tmp_path), None)["ranks"] == []
    table.remove()
    assert not layout.positions_file.exists()


def test_a_damaged_table_is_none(tmp_path):
    create_record(tmp_path, name="digits", request={}, schedule=None, provenance={})
    for text in ("", "[]", '{"ranks": 3}', '{"ranks": [{"host": "a"}]}'):
        RunLayout(tmp_path).positions_file.write_text(text)
        assert summarize(Run(tmp_path), None)["ranks"] == []


def test_a_script_without_a_session_has_no_positions(tmp_path):
    layout = RunLayout(tmp_path)
    RecordedPositions(Positions(Phase.START, Phase.START), layout, dict, is_script=True).read()
    assert not layout.positions_file.exists()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_run_writes_the_table_while_it_runs_and_removes_it(workplace):
    launch = workplace.start("--set=model={target: launch_jobs:Slow, args: {seconds: 1}}")

    def table():
        files = list(workplace.runs.glob("*/positions.json"))
        return json.loads(files[0].read_bytes())["ranks"] if files else []

    ranks = launch.wait_until(lambda: [each for each in table() if each["step"]])
    assert {each["phase"] for each in ranks} <= {phase.label for phase in Phase}
    assert launch.wait(60) == 0, launch.stderr
    assert not launch.run.layout.positions_file.exists()
