"""Reads rendered files back: the command in them, and the request that it and the numbers around it stand for."""

import re
import shlex
from dataclasses import replace

from distrib.job.plan import make_request
from distrib.job.reader import Job

KUBERNETES_GPU = "nvidia.com/gpu"


def request_of_command(command):
    """The request of a rendered `distrib run …`, read as that command reads it: the job's file and its options."""
    program, verb, path, *options = command
    assert (program, verb) == ("distrib", "run")
    overrides = [option.removeprefix("--set=") for option in options if option.startswith("--set=")]
    overrides += [
        f"resources.device={option.removeprefix('--device=')}" for option in options if option.startswith("--device=")
    ]
    job = Job.load(path, overrides)
    return make_request(job.spec, "ray", job.spec.resources.device)


def entrypoint_command(entrypoint):
    """The folder and the command of an entrypoint `cd FOLDER && exec COMMAND`."""
    cd, folder, and_, exec_, *command = shlex.split(entrypoint)
    assert (cd, and_, exec_) == ("cd", "&&", "exec")
    return folder, command


def directives(script):
    """The options of sbatch in a batch script, by name."""
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE)
    return dict(found)


def with_numbers(request, *, workers, cpus, gpus, memory_bytes):
    """`request` with the numbers that were read from a rendered file in place of its own."""
    low, high = workers
    return replace(
        request,
        min_workers=low,
        max_workers=high,
        cpus_per_worker=cpus,
        device="cuda" if gpus else "cpu",
        memory_bytes=memory_bytes,
    )
