"""A real Slurm on the hosts of a lab: munged and slurmctld on host1, slurmd on all of them."""

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
_START_SECONDS = 30

_CONFIG = """\
ClusterName=lab
SlurmctldHost=host1({head})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
UnkillableStepTimeout=30
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def find_obstacle():
    """Why there can be no Slurm here; None if there can."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    return f"Slurm is not installed ({', '.join(missing)} missing): make slurm-tools" if missing else None


class SlurmCluster:
    """Slurm on a lab's hosts, until it is closed.

    Args:
        lab: Hosts without Ray, whose names resolve to their addresses.
        folder: For configuration, state and logs.
        cpus: CPUs that each node has for Slurm.
    """

    def __init__(self, lab, folder, *, cpus=2):
        self._lab = lab
        self.folder = Path(folder)
        self._daemons = []
        for name in ("state", *(f"spool-{host}" for host in lab.hosts)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        nodes = "\n".join(
            f"NodeName={host} NodeAddr={lab.host_address(host)} CPUs={cpus} RealMemory=8000" for host in lab.hosts
        )
        head = lab.host_address("host1")
        (self.folder / "slurm.conf").write_text(_CONFIG.format(head=head, folder=self.folder, nodes=nodes))

    def start(self):
        """Returns once all nodes are idle."""
        files = [f"--{kind}-file={self.folder}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
        self._daemon("host1", "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._daemon("host1", "slurmctld", "-D")
        for host in self._lab.hosts:
            self._daemon(host, "slurmd", "-D")
        self._wait(lambda: self.states() == ["idle"] * len(self._lab.hosts))

    def states(self):
        """The state of each node."""
        return self.run("sinfo", "--noheader", "--Node", "--format=%t", is_checked=False).split()

    def run(self, *command, is_checked=True, folder=None, text=None, environment=None):
        """What a command of Slurm prints on host1."""
        done = subprocess.run(
            self._lab.command("host1", command, folder or self.folder),
            env=self.environment(environment),
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 or not is_checked, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def environment(self, environment=None):
        """The variables by which commands find this Slurm."""
        given = dict(os.environ if environment is None else environment)
        given["PATH"] = given.get("PATH", "") + os.pathsep + "/usr/sbin"
        return {**given, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def job(self, number):
        """What Slurm knows of a job, by name."""
        fields = self.run("scontrol", "show", "--oneliner", "job", number).split()
        return dict(field.partition("=")[::2] for field in fields)

    def wait_for_job(self, number, states, seconds):
        """Waits until a job is in one of `states`; returns what Slurm knows of it."""
        deadline = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < deadline, f"{job}\n{self.logs()}"
            time.sleep(0.5)
        return job

    def logs(self):
        """The end of what the daemons have written."""
        return "\n".join(f"{file.name}:\n{file.read_text()[-1500:]}" for file in sorted(self.folder.glob("*.log")))

    def close(self):
        """Ends the daemons; the lab ends what is left."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _daemon(self, host, *command):
        log = open(self.folder / f"{command[0]}-{host}.out.log", "w")  # noqa: SIM115
        process = subprocess.Popen(
            self._lab.command(host, command, self.folder),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        self._daemons.append(process)

    def _wait(self, condition):
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"Slurm did not start: {self.states()}\n{self.logs()}"
            time.sleep(0.1)
