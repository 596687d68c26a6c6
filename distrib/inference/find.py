"""From what a user typed to the run that it names."""

from __future__ import annotations

import os
from pathlib import Path

from distrib.errors import JobError
from distrib.job.fields import nearest
from distrib.runs.record import Run


def find_run(text: str, runs_folder: Path) -> Run:
    """The run of that folder, or of that id in `runs_folder`.

    Raises:
        JobError: There is none.
    """
    path = Path(text).expanduser()
    names_a_path = os.sep in text or text in (os.curdir, os.pardir)
    for folder in [path] if names_a_path else [runs_folder / text, path]:
        if (folder / "run.json").exists():
            return Run(folder)
    if path.is_dir():
        raise JobError(f"{text} is a folder but not of a run: it has no run.json", field="RUN")
    ids = [file.parent.name for file in runs_folder.glob("*/run.json")] if runs_folder.is_dir() else []
    match = nearest(path.name, ids)
    advice = f"did you mean '{match}'?" if match else "distrib list shows the runs; a run's folder can be named too"
    where = "" if names_a_path else f" in {runs_folder}"
    raise JobError(f"there is no run '{text}'{where}; {advice}", field="RUN")
