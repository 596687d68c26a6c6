"""Reports as a browser shows them: what they contain is read from the page, not from what generated it."""

import json
import math
import random
import time

import pytest

from distrib.observe.report.report import make_report
from distrib.runs.events import EventWriter
from distrib.runs.record import create_record, update_record
from distrib.runs.run import Run
from tests.support.browser import assert_sound, focus_chart, rows, texts

pytestmark = pytest.mark.timeout(120)

STEPS, STEPS_PER_EPOCH = 600, 60
JOB = """
name: digits
model: {{target: jobs.digits:Mlp, args: {{hidden: {hidden}}}}}
data: {{train: jobs.digits:Digits, batch_size: 64}}  # <script>alert(1)</script>
loss: torch.nn:CrossEntropyLoss
optimizer: {{target: torch.optim:AdamW, args: {{lr: 5.0e-3}}}}
train: {{epochs: 10}}
"""
ERROR = {
    "rank": 1,
    "host": "node2",
    "type": "RuntimeError",
    "message": "shapes <script>document.title='x'</script> & 32x65",
    "traceback": "Traceback (most recent call last):\n" + '  File "model.py", line 41, in forward ' + "x" * 300 + "\n",
    "kind": "user",
}
CHANGES = [("restart", 120, 250), ("resize", 250, 430), ("restart", 420, 500), ("restart", 480, STEPS)]
"""After a first attempt to step 150: what began each later attempt, at which step, and the last step of it."""


class Writer:
    """Writes a run whose steps take a tenth of a second."""

    def __init__(self, run, started):
        self.run, self.time = run, started
        self.random = random.Random(0)

    def attempt(self, number, first, last, change=None):
        with EventWriter(self.run.layout.metrics_file, number) as events:
            if change is not None:
                self._write(events, change, first, message=f"{change} {number} <b>of</b> node{number}")
            self.time += 5
            self._write(events, "start", first, world_size=2)
            for step in range(first + 1, last + 1):
                self.time += 0.1
                if step % 10 == 0 or step == 1:
                    loss = 2 * math.exp(-step / 100) + 0.1 + 0.02 * self.random.random()
                    speed = {"step_seconds": 0.09, "data_seconds": 0.01, "samples_per_second": 640.0}
                    self._write(events, "train", step, loss=loss, lr=0.1, **speed)
                if step % STEPS_PER_EPOCH == 0:
                    accuracy = 1 - math.exp(-step / 100)
                    self._write(events, "eval", step, loss=0.2, accuracy=accuracy, eval_seconds=0.1)
                    self._write(events, "checkpoint", step, save_seconds=0.1, stall_seconds=0.01, wait_seconds=0.0)

    def _write(self, events, kind, step, **fields):
        events.write(kind, step=step, epoch=step // STEPS_PER_EPOCH, samples=step * 64, time=self.time, **fields)


@pytest.fixture
def new_run(tmp_path):
    def make(name, hidden=256):
        schedule = {"total_steps": STEPS, "steps_per_epoch": STEPS_PER_EPOCH, "world_size": 2, "rank_batches": [32, 32]}
        provenance = {"git": {"commit": "3f9a" * 10, "dirty": True}, "torch": "2.13.0", "command": ["distrib", "run"]}
        run = Run(tmp_path / "runs" / name)
        create_record(
            run.folder,
            name="digits",
            request={"device": "cpu"},
            schedule=schedule,
            provenance=provenance,
            started=1_700_000_000.0,
        )
        run.layout.job_file.write_text(JOB.format(hidden=hidden))
        return run, Writer(run, 1_700_000_000.0)

    return make


def end(run, writer, status="finished", **fields):
    update_record(run.folder, status=status, ended=writer.time + 1, first_step_seconds=5.1, **fields)
    return run


@pytest.fixture
def finished(new_run):
    run, writer = new_run("finished")
    writer.attempt(0, 0, STEPS)
    return end(run, writer)


@pytest.fixture
def failed(new_run):
    run, writer = new_run("failed", hidden=512)
    writer.attempt(0, 0, 90)
    return end(run, writer, "failed", error=ERROR)


@pytest.fixture
def restarted(new_run):
    run, writer = new_run("restarted")
    writer.attempt(0, 0, 150)
    for number, (change, first, last) in enumerate(CHANGES, 1):
        writer.attempt(number, first, last, change)
    return end(run, writer)


@pytest.fixture
def page_of(tmp_path):
    def write(*runs):
        file = tmp_path / "report.html"
        file.write_text(make_report(runs), encoding="utf-8")
        return file

    return write


def mark_positions(page, chart, kind):
    """The x values at which a chart shows marks of a kind, by where they are on the screen and by the axis."""
    script = """
    ([chart, kind]) => {
      const figure = document.querySelector(`figure[data-chart="${chart}"]`);
      const {box, x} = JSON.parse(document.getElementById("chart-data").textContent)[chart];
      const svg = figure.querySelector("svg"), frame = svg.getBoundingClientRect();
      const scale = frame.width / svg.viewBox.baseVal.width;
      return [...svg.querySelectorAll(`[data-mark^="${kind}:"]`)].map((mark) => {
        const area = mark.getBoundingClientRect();
        const position = ((area.left + area.right) / 2 - frame.left) / scale;
        return x[0] + (position - box[0]) / (box[2] - box[0]) * (x[1] - x[0]);
      });
    }"""
    return page.evaluate(script, [chart, kind])


def test_a_page_is_sound_on_a_phone_in_the_dark(restarted, page_of, visit, axe):
    assert_sound(visit(page_of(restarted), 390, "dark"), 390, axe, "distrib report")


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_pages_are_sound(finished, failed, restarted, page_of, visit, axe, width, scheme):
    for runs in ([finished], [failed], [restarted], [finished, failed]):
        assert_sound(visit(page_of(*runs), width, scheme), width, axe, "distrib report")


def test_restarts_and_a_resize_are_at_their_steps(restarted, page_of, visit):
    page = visit(page_of(restarted))
    shown = [(row[0], int(row[1].replace(",", ""))) for row in rows(page, "events") if row[0] != "checkpoint"]
    assert shown == [(change, first) for change, first, _ in CHANGES]
    for chart in ("loss-step", "metric-0-step", "speed"):
        for kind in ("restart", "resize"):
            expected = [first for change, first, _ in CHANGES if change == kind]
            assert mark_positions(page, chart, kind) == pytest.approx(expected, abs=3)
    seconds = mark_positions(page, "loss-time", "restart")
    assert len(seconds) == 3
    assert seconds == sorted(seconds)
    again = [curve for curve in page.charts()["loss-step"]["curves"] if "trained again later" in curve["name"]]
    assert [(min(curve["x"]), max(curve["x"])) for curve in again if "attempt 0" in curve["name"]] == [(130, 150)]


def test_a_failed_run_has_its_cause_in_front(failed, page_of, visit):
    page = visit(page_of(failed), 390)
    assert texts(page, ".result") == ["failed at step 90 of 600"]
    assert texts(page, ".error .cause") == [f"rank 1 on node2: RuntimeError: {ERROR['message']}"]
    top = page.evaluate("document.querySelector('.error').getBoundingClientRect().top")
    assert top < page.evaluate("document.querySelector('figure').getBoundingClientRect().top")
    assert top < 300
    assert [row[4] for row in rows(page, "ranks")] == ["failed", "failed first"]


def test_several_runs_with_the_fields_that_differ(finished, failed, page_of, visit):
    page = visit(page_of(finished, failed))
    assert rows(page, "fields") == [["model.args.hidden", "256", "512", "+100.0%"]]
    results = {row[0]: row[1:] for row in rows(page, "results")}
    assert results["status"] == ["finished", "failed", ""]
    names = [curve["name"] for curve in page.charts()["loss-step"]["curves"]]
    assert names == ["finished (train)", "finished (evaluation)", "failed (train)", "failed (evaluation)"]


def test_values_by_keyboard(finished, page_of, visit):
    page = visit(page_of(finished))
    before = page.locator("figure").first.locator(".readout").text_content()
    figure = focus_chart(page, "loss-step")
    page.keyboard.press("End")
    assert figure.locator(".readout").text_content().startswith("step 600: train 0.1")
    page.keyboard.press("Home")
    assert figure.locator(".readout").text_content().startswith("step 1: train 2.")
    page.keyboard.press("Escape")
    assert figure.locator(".readout").text_content() == before


def write_long_run(run, count, spikes):
    """`count` train events with planted values, written without an encoder for speed."""
    head = '{"time": %.2f, "attempt": 0, "event": "train", "step": %d, "epoch": 0, "samples": %d, "loss": %r, '
    rest = '"lr": 0.1, "step_seconds": 0.01, "data_seconds": 0.001, "samples_per_second": 6400.0}\n'
    line = head + rest
    with run.layout.metrics_file.open("w") as file:
        for step in range(1, count + 1):
            file.write(line % (1_700_000_000 + step / 100, step, step * 64, spikes.get(step, 1 + step % 7 / 100)))


def seconds_to_open(visit, file):
    """The page, and the shortest of three times until it is drawn."""
    times = []
    for _ in range(3):
        started = time.monotonic()
        page = visit(file)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        times.append(time.monotonic() - started)
    return page, min(times)


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(400)])])
def test_downsampling_keeps_planted_spikes(new_run, finished, page_of, visit, count):
    spikes = {count // 3: 97.0, count // 2: 0.001, count - 5: 55.0}
    run, writer = new_run("long")
    write_long_run(run, count, spikes)
    end(run, writer)
    _, seconds_for_few_events = seconds_to_open(visit, page_of(finished))
    file = page_of(run)
    assert file.stat().st_size < 5_000_000
    page, seconds = seconds_to_open(visit, file)
    assert seconds < 30  # 2 s on a machine with nothing else to do
    assert seconds < 5 * seconds_for_few_events
    print(f"{count:,} steps: {file.stat().st_size:,} bytes, opened in {seconds:.2f} s ({seconds_for_few_events:.2f} s)")
    curve = page.charts()["loss-step"]["curves"][0]
    assert {x: y for x, y in zip(curve["x"], curve["y"], strict=True) if x in spikes} == spikes
    script = """() => {
      const {box, x, y, y_log: log} = JSON.parse(document.getElementById("chart-data").textContent)["loss-step"];
      const svg = document.querySelector('figure[data-chart="loss-step"] svg');
      const scale = log ? Math.log : (value) => value;
      const paths = [...svg.querySelectorAll("path")].map((path) => path.getAttribute("d"));
      const longest = paths.reduce((one, other) => other.length > one.length ? other : one);
      return longest.match(/[ML] [-\\d.]+ [-\\d.]+/g).map((point) => {
        const [, left, top] = point.split(" ").map(Number);
        const height = (box[3] - top) / (box[3] - box[1]);
        const value = scale(y[0]) + height * (scale(y[1]) - scale(y[0]));
        return [x[0] + (left - box[0]) / (box[2] - box[0]) * (x[1] - x[0]), log ? Math.exp(value) : value];
      });
    }"""
    drawn = page.evaluate(script)
    for step, value in spikes.items():
        assert any(abs(x - step) < count / 1000 and y == pytest.approx(value, rel=0.02) for x, y in drawn)


def test_damaged_events_are_shown_as_far_as_they_go(new_run, page_of, visit):
    run, writer = new_run("damaged")
    writer.attempt(0, 0, 120)
    end(run, writer)
    lines = run.layout.metrics_file.read_bytes().splitlines(keepends=True)
    damage = [b"\xff\x00\n", b'{"event": "train"}\n', json.dumps({"event": "train", "time": 1e400, "step": 1}).encode()]
    damage += [b'{"time": 1, "attempt": 0, "event": "train", "step": 1%s, "samples": 3}\n' % (b"0" * 400), b"[" * 5000]
    run.layout.metrics_file.write_bytes(b"".join([*lines[:9], *damage, b"\n", *lines[9:], b'{"time": 17']))
    page = visit(page_of(run))
    assert texts(page, ".note") == ["metrics.jsonl has 5 damaged lines, left out here"]
    assert page.charts()["loss-step"]["curves"][0]["x"][-1] == 120


def test_a_run_without_events(new_run, page_of, visit):
    run, _ = new_run("empty")
    assert texts(visit(page_of(run)), ".result") == ["running"]
