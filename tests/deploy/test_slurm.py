"""Batch scripts: equal in every number to the plan, without any secret, and refused where they cannot be."""

import shutil
import subprocess

import pytest

from distrib.errors import JobError
from tests.deploy.conftest import ELASTIC, FOLDER, GPU, STORE
from tests.support.rendered import directives, request_of_command, with_numbers

CASES = {
    "digits": ((FOLDER,), ()),
    "elastic": ((*ELASTIC, FOLDER), ("workers_per_host=2", "partition=spot")),
    "gpu": ((*GPU, STORE), ("workers_per_host=4", "time=1-12:00:00", "account=physics")),
    "one host": ((*GPU, STORE, "resources.placement=strict_pack"), ()),
}


@pytest.fixture(params=CASES)
def rendered(request, render):
    overrides, settings = CASES[request.param]
    return render("slurm", *overrides, settings=settings)


def training_command(script):
    """What the script trains with, as its shell would take it apart."""
    (line,) = [line for line in script.splitlines() if line.strip().startswith("distrib run")]
    words = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + line.strip().removesuffix("&")],
        env={"HEAD_ADDRESS": "10.0.0.1:6379"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")[:-1]
    assert words[-2:] == ["--address", "10.0.0.1:6379"]
    return words[:-2]


def test_numbers_are_the_plans_and_the_request_can_be_read_back(rendered):
    deployment, script = rendered
    options = directives(script)
    read = request_of_command(training_command(script))
    assert read == deployment.request
    low, _, high = options["nodes"].partition("-")
    cpus = int(options["cpus-per-task"])
    per_host = cpus // read.cpus_per_worker
    gpus = options.get("gpus-per-node", "0")
    assert gpus == ({"cuda": f"h100:{per_host}", "cpu": "0"}[read.device])
    assert f"--num-cpus={cpus} --num-gpus={gpus.rpartition(':')[2]}" in script
    memory = None
    if "mem" in options:
        total = (int(options["mem"].removesuffix("M")) - 2048) * 2**20
        assert f"--memory={total}" in script
        memory = total // per_host
    workers = (int(low) * per_host, int(high or low) * per_host)
    numbers = with_numbers(read, workers=workers, cpus=read.cpus_per_worker, gpus=gpus != "0", memory_bytes=memory)
    assert numbers == deployment.request
    assert ("no-kill" in options) == (read.min_workers != read.max_workers)
    seconds = int(options["signal"].removeprefix("B:USR1@"))
    assert seconds >= deployment.request.grace_seconds + 30
    assert {"requeue", "exclusive"} <= options.keys()


def test_scripts_are_ones_that_bash_takes(rendered):
    done = subprocess.run(["bash", "-n"], input=rendered[1], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_become_options_of_sbatch(render):
    _, script = render("slurm", *CASES["gpu"][0], settings=CASES["gpu"][1])
    options = directives(script)
    assert (options["time"], options["account"], options["nodes"]) == ("1-12:00:00", "physics", "2")


def test_the_output_lies_beside_the_run_or_in_the_working_directory(render, folder):
    _, script = render("slurm", FOLDER)
    assert directives(script)["output"] == "/shared/runs/digits-1-slurm-%j.log"
    _, script = render("slurm", STORE)
    assert directives(script)["output"] == f"{folder}/digits-1-slurm-%j.log"


def test_awkward_values_reach_the_command_unchanged(render, tmp_path):
    awkward = "model.args.note='it\\'s $HOME \"quoted\" `x` {a, b}'"
    deployment, script = render("slurm", FOLDER, awkward.replace("\\'", "''"), variables={"NOTE": "a 'b' $c"})
    assert list(deployment.command) == training_command(script)
    assert "export NOTE='a '\"'\"'b'\"'\"' $c'" in script


@pytest.mark.parametrize(
    ("overrides", "settings", "options", "message"),
    [
        ((FOLDER, "resources.labels={zone: a}"), (), {}, r"resources.labels.zone: Slurm's nodes have features"),
        ((FOLDER,), ("partiton=x",), {}, r"--with: slurm has no setting partiton; did you mean partition\?"),
        ((FOLDER,), ("time=soon",), {}, r"--with: time=soon: "),
        ((FOLDER,), ("partition=a;rm -rf /",), {}, r"--with: partition=a;rm -rf /: "),
        ((FOLDER,), (), {"packages": ["numpy"]}, r"--pip: Slurm jobs use what is installed"),
        ((FOLDER,), (), {"variables": {"HF_TOKEN": "x"}}, r"--env: HF_TOKEN looks like a secret"),
    ],
)
def test_what_cannot_be_expressed_names_the_field_and_the_way_out(render, overrides, settings, options, message):
    with pytest.raises(JobError, match=message):
        render("slurm", *overrides, settings=settings, **options)


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="Slurm is installed here")
def test_without_sbatch_the_way_out_is_named():
    from distrib.deploy.slurm.sbatch import submit_script
    from distrib.errors import LaunchError

    with pytest.raises(LaunchError, match="login node"):
        submit_script("#!/bin/bash\n")
