"""The harness itself: turns, ratios, verdicts, and sides that fail."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest

from tests.bench.compare import Row, take_turns
from tests.bench.memory import Peak, peak_of
from tests.bench.process import SideFailedError, run_side
from tests.bench.table import as_data, as_text


def python(source: str) -> list[str]:
    return [sys.executable, "-S", "-c", source]


def test_sides_take_turns_and_each_starts_a_round():
    order = []
    measured = take_turns(3, {name: partial(order.append, name) for name in "ab"})
    assert "".join(order) == "abbaab"
    assert {name: len(values) for name, values in measured.items()} == {"a": 3, "b": 3}


def test_ratio_is_the_median_of_those_of_each_round():
    row = Row("what", ours=(1.0, 10.0, 3.0), peer=(2.0, 10.0, 4.0), bound=0.75)
    assert row.judged == (0.5, 1.0, 0.75)
    assert row.verdict == "ok"
    assert "0.75 (0.50–1.00)  0.75   ok" in as_text([row], rounds=3)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("what", ours=(1.1,), peer=(1.0,), bound=1.0), "over"),
        (Row("what", ours=(0.4, 0.6, 0.5), bound=0.5), "ok"),
        (Row("what", ours=(2.0,), peer=(1.0,)), "for information"),
        (Row("what", problem="exited with 1"), "failed"),
        (Row("what", bound=1.0), "failed"),
        (Row("what", problem="not installed", skipped=True), "skipped"),
    ],
)
def test_verdicts(row, verdict):
    assert row.verdict == verdict
    assert verdict in as_text([row], rounds=1)
    assert as_data([row], rounds=1)["rows"][0]["verdict"] == verdict


def test_a_failing_side_shows_its_last_words():
    with pytest.raises(SideFailedError, match=r"peer exited with 3, not 0\nlast words"):
        run_side("peer", python("import sys; print('last words', file=sys.stderr); sys.exit(3)"), timeout_seconds=30)


def test_a_slow_side_is_ended_with_all_that_it_started(tmp_path):
    child_file = tmp_path / "child"
    source = f"""
import subprocess, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
open({str(child_file)!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    with pytest.raises(SideFailedError, match="still running after 2 s"):
        run_side("peer", python(source), timeout_seconds=2)
    assert is_gone(int(child_file.read_text()))


def test_peak_memory_is_that_of_the_children(tmp_path):
    peak = Peak()
    child = "held = bytearray(100 << 20); import time; time.sleep(1)"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"
    run_side("peer", python(source), timeout_seconds=30, watch=lambda pid: peak_of(pid, peak))
    assert 100 << 20 < peak.children_bytes < 200 << 20
    assert peak.all_bytes > peak.children_bytes


def is_gone(pid: int) -> bool:
    """Whether a process ends, or is at most a zombie, within a few seconds."""
    for _ in range(50):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if not state.stdout.strip() or state.stdout.startswith("Z"):
            return True
        time.sleep(0.1)
    return not os.path.exists(f"/proc/{pid}")
