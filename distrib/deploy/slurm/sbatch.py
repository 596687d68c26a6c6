"""Handing a batch script to Slurm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from distrib.errors import LaunchError
from distrib.job.secret_names import is_secret_name

_TIMEOUT_SECONDS = 60


def submit_script(text: str) -> str:
    """Submits a batch script by `sbatch`; returns the job's number.

    Slurm keeps the environment of sbatch on disk, so variables that look like secrets are left out of it.

    Raises:
        LaunchError: There is no sbatch here, or Slurm refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError("sbatch is not installed here; run this on a login node of the Slurm cluster")
    environment = {name: value for name, value in os.environ.items() if not is_secret_name(name)}
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"],
            input=text,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f"sbatch has not answered for {_TIMEOUT_SECONDS} s; is slurmctld up?") from error
    number = re.match(r"\d+", done.stdout)
    if done.returncode != 0 or number is None:
        reason = done.stderr.strip().removeprefix("sbatch: ") or "no reason given"
        raise LaunchError(f"Slurm refuses the job: {reason}")
    return number.group()
