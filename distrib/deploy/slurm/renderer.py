"""`--render slurm`: a batch script that starts Ray on the nodes of a Slurm job and trains on it."""

from __future__ import annotations

import math
import os
import shlex
import sys

from distrib.deploy.deployment import Deployment
from distrib.deploy.hosts import RAY_MEMORY_BYTES, Hosts, hosts_of
from distrib.deploy.renderer import Rendered, Renderer
from distrib.deploy.slurm.settings import SlurmSettings
from distrib.errors import JobError
from distrib.launch.ray.submit.job_environment import HEAD_SETTINGS

_MIB = 2**20
_STOP_MARGIN_SECONDS = 30
"""Seconds between the end of `failures.grace` and the time limit, for Ray to stop and the job to queue again."""


def _directives(deployment: Deployment, settings: SlurmSettings, hosts: Hosts) -> list[str]:
    """The options of sbatch, which the job's request decides."""
    request = deployment.request
    nodes = f"{hosts.min_hosts}-{hosts.max_hosts}" if hosts.is_elastic else str(hosts.max_hosts)
    lines = [f"job-name={deployment.job.name}", f"nodes={nodes}", "ntasks-per-node=1"]
    lines.append(f"cpus-per-task={hosts.num_cpus}")
    if hosts.num_gpus:
        kind = f"{request.accelerator.lower()}:" if request.accelerator else ""
        lines.append(f"gpus-per-node={kind}{hosts.num_gpus}")
    if hosts.memory_bytes is not None:
        lines.append(f"mem={math.ceil((hosts.memory_bytes + RAY_MEMORY_BYTES) / _MIB)}M")
    given = {name: getattr(settings, name) for name in ("time", "partition", "account", "qos", "constraint")}
    lines += [f"{name}={value}" for name, value in given.items() if value is not None]
    lines += ["exclusive", "requeue", "open-mode=append", f"chdir={os.getcwd()}", f"output={_log_file(deployment)}"]
    if hosts.is_elastic:
        lines.append("no-kill")  # the loss of a node is not the end of the job
    return [*lines, f"signal=B:USR1@{math.ceil(request.grace_seconds) + _STOP_MARGIN_SECONDS}"]


def _log_file(deployment: Deployment) -> str:
    """What the job prints, all attempts of it; `%j`, the job's number, is Slurm's to fill in."""
    folder = os.getcwd() if deployment.is_on_object_store else deployment.storage
    return os.path.join(folder, f"{deployment.run_id}-slurm-%j.log")


def _script(deployment: Deployment, settings: SlurmSettings, hosts: Hosts) -> str:
    setup = settings.setup or f'export PATH={shlex.quote(os.path.dirname(sys.executable))}:"$PATH"'
    exported = {**HEAD_SETTINGS, **deployment.variables}
    variables = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in exported.items())
    return _TEMPLATE.format(
        setup=setup,
        variables=variables,
        port=settings.port,
        resources=" ".join(hosts.ray_options),
        command=shlex.join(deployment.command),
        requeues=settings.requeues,
    )


_TEMPLATE = """
set -u
umask 077
{setup}
{variables}
# A token for the Ray of this job alone: made here, in no file and in no argument.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# This script runs on the first node, which is also Ray's head. Its own name may resolve to loopback.
head=$(getent ahosts "$SLURMD_NODENAME" | awk '$1 !~ /^127\\.|^::1$|^fe80:/ {{print $1; exit}}')
head=${{head:-$(hostname -I | awk '{{print $1}}')}}
case $head in *:*) head="[$head]" ;; esac
export HEAD_ADDRESS="$head:{port}"
DISTRIB_STATE=$(mktemp -d)
export DISTRIB_STATE

# What trains, on the head, once Ray runs on all nodes. Signals go to it alone: Ray must outlive the last checkpoint.
train() {{
    {command} --address "$HEAD_ADDRESS" &
    echo $! > "$DISTRIB_STATE/pid"
    wait $!
    echo $? > "$DISTRIB_STATE/exit"
}}
export -f train

if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then
    # The nodes are this job's alone; Slurm may have left the Ray of its last attempt on them.
    srun --ntasks-per-node=1 ray stop --force >/dev/null 2>&1
fi
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 \\
    ray symmetric-run --address "$HEAD_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" {resources} \\
    --dashboard-host=127.0.0.1 --disable-usage-stats -- bash -c train &
step=$!
number=$([ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] && echo 1 || echo 0)

stop() {{
    [ -s "$DISTRIB_STATE/pid" ] && kill -TERM "$(cat "$DISTRIB_STATE/pid")" || scancel "$SLURM_JOB_ID.$number"
}}
queue_again=
trap 'queue_again=yes; stop' USR1   # from Slurm, ahead of the time limit
trap stop TERM                      # scancel --batch --signal=TERM: a checkpoint, and the end
end=0
while kill -0 $step 2>/dev/null; do
    sleep 1 & wait $!
    # Once the head is done, the other nodes would wait a minute for it to come back.
    if [ -s "$DISTRIB_STATE/exit" ] && [ $((end += 1)) = 10 ]; then scancel --signal=KILL "$SLURM_JOB_ID.$number"; fi
done

code=$(cat "$DISTRIB_STATE/exit" 2>/dev/null || echo 3)
rm -rf "$DISTRIB_STATE"
if [ "$code" = 130 ] && [ -n "$queue_again" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
    echo "stopped ahead of the time limit; queueing again, to resume from the newest checkpoint"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit "$code"
"""


def _check(deployment: Deployment, settings: SlurmSettings) -> None:
    if deployment.packages:
        raise JobError("Slurm jobs use what is installed on the nodes; install it there", field="--pip")
    if deployment.request.labels:
        name = next(iter(deployment.request.labels))
        raise deployment.job.error(
            f"resources.labels.{name}",
            "Slurm's nodes have features instead of labels; remove the labels and add --with constraint=FEATURE",
        )


def _explanation(deployment: Deployment) -> list[str]:
    return [
        f"distrib run {deployment.run_id} as a Slurm job; Ray runs on its nodes while it lasts.",
        "  start   sbatch FILE",
        "  watch   squeue --me, and the output file below",
        "  stop    scancel --batch --signal=TERM JOB   (takes a checkpoint first; plain scancel does not)",
        f"Ahead of the time limit the run stops with a checkpoint in {deployment.storage}, queues again and resumes.",
    ]


def _write(deployment: Deployment, settings: SlurmSettings, hosts: Hosts) -> Rendered:
    directives = "".join(f"#SBATCH --{text}\n" for text in _directives(deployment, settings, hosts))
    return Rendered(_explanation(deployment), directives + _script(deployment, settings, hosts), "#!/bin/bash\n")


SLURM = Renderer("slurm", SlurmSettings, _check, hosts_of, _write)
"""Renders a batch script for sbatch."""
