"""A command that receives a signal while it still imports what it consists of."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

MODULE = """\
import os, signal, time
os.kill(os.getpid(), int(os.environ["SIGNAL"]))
time.sleep(9)
"""


def interrupted_at_import(module, folder, number):
    """`python -m MODULE --help`, which gets a signal when it imports typer; how it ended."""
    (folder / "typer.py").write_text(MODULE)
    path = os.pathsep.join([str(folder), str(REPOSITORY)])
    return subprocess.run(
        [sys.executable, "-c", f"import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
         f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "SIGNAL": str(int(number))},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )  # fmt: skip
