"""A launcher without a training: owns a run and writes its events, a few steps a second, until it reads how to end.

Arguments: folder of the run, first step, last step, attempt, and `finished`, `stopped` or `killed`, which
waits for a file `go` beside the run's folder. While there is a file `hold` there, it stands still after its step.
"""

import os
import signal
import sys
import time
from pathlib import Path

from distrib.runs.events import EventWriter
from distrib.runs.owner import this_process
from distrib.runs.record import create_record, update_record

TOTAL_STEPS = 12
SECONDS = 0.15


def main(folder, first, last, attempt, end):
    if not (folder / "run.json").exists():
        schedule = {"total_steps": TOTAL_STEPS, "steps_per_epoch": 3, "world_size": 2, "global_batch_size": 8}
        create_record(folder, name="digits", request={"device": "cpu"}, schedule=schedule, provenance={})
    update_record(folder, status="running", ended=None, owner=this_process())
    with EventWriter(folder / "metrics.jsonl", attempt) as events:
        events.write("start", step=first - 1, epoch=0, samples=(first - 1) * 8, world_size=2)
        for step in range(first, last + 1):
            fields = {"step": step, "epoch": (step - 1) // 3, "samples": step * 8}
            speed = {"samples_per_second": 80.0, "data_seconds": 0.01, "step_seconds": 0.1, "lr": 0.1}
            events.write("train", **fields, loss=1 / step, **speed)
            if step % 3 == 0:
                metrics = {f"metric_{number}": number / 7 for number in range(6)}
                events.write("eval", **fields, loss=2 / step, **metrics)
                events.write("checkpoint", **fields, save_seconds=0.1)
            time.sleep(SECONDS)
            while (folder.parent / "hold").exists():
                time.sleep(0.02)
    if end == "killed":
        while not (folder.parent / "go").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    update_record(folder, status=end)


if __name__ == "__main__":
    path, first_step, last_step, number, how = sys.argv[1:]
    main(Path(path), int(first_step), int(last_step), int(number), how)
