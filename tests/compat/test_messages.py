"""The error texts by which errors are recognized are those of the installed libraries."""

import errno
import gc
import inspect
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file

from distrib.compat import messages


def peers(path, seconds):
    """Two connected gloo groups of this process, as two ranks."""
    groups = [None, None]

    def connect(rank):
        store = dist.FileStore(str(path / "store"), 2)
        groups[rank] = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=seconds))

    threads = [Thread(target=connect, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return groups


@pytest.mark.relies_on("torch.distributed: text of a time-out")
@pytest.mark.timeout(60)
def test_a_peer_that_stays_silent(tmp_path):
    groups = peers(tmp_path, 0.3)
    with pytest.raises(RuntimeError) as error:
        groups[0].allreduce([torch.ones(3)]).wait()
    assert messages.is_lost_connection(str(error.value))
    assert messages.is_timeout(str(error.value))


@pytest.mark.relies_on("torch.distributed: text of a lost connection")
@pytest.mark.timeout(60)
def test_a_peer_that_is_gone(tmp_path):
    groups = peers(tmp_path, 30)
    groups.pop()
    gc.collect()
    with pytest.raises(RuntimeError) as error:
        groups[0].allreduce([torch.ones(3)]).wait()
    assert messages.is_lost_connection(str(error.value))
    assert not messages.is_timeout(str(error.value))


DEADLY = """
import os, signal
from torch.utils.data import DataLoader, Dataset

class Deadly(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

try:
    next(iter(DataLoader(Deadly(), num_workers=1)))
except RuntimeError as error:
    print(error)
"""


@pytest.mark.relies_on("torch.utils.data: text of a lost loader worker")
@pytest.mark.timeout(60)
def test_a_loader_worker_that_is_killed():
    """In a process of its own: this one has threads of gloo, and what is forked from it may hang."""
    message = subprocess.run([sys.executable, "-c", DEADLY], capture_output=True, text=True, check=True).stdout
    assert messages.is_lost_loader_worker(message)


@pytest.mark.relies_on("torch.utils.data: text of a loader worker without shared memory")
def test_torch_says_that_loader_workers_lack_shared_memory():
    """Whether it does depends on who notices the worker's end first, so its text is looked for in its library."""
    text = "dataloader's workers are out of shared memory"
    assert text.encode() in Path(torch.__path__[0], "lib/libtorch_python.so").read_bytes()
    assert messages.is_out_of_shared_memory(f"DataLoader worker (pid 7) is killed by signal: Bus error. Maybe {text}.")


@pytest.mark.relies_on("torch.serialization: text of a file that cannot be written")
def test_a_full_disk():
    with pytest.raises(RuntimeError) as error:
        torch.save(torch.ones(2**20), "/dev/full")
    assert messages.is_failed_file(str(error.value))


@pytest.mark.relies_on("torchmetrics: warning of compute before update")
def test_a_metric_without_samples_warns_of_nothing():
    from torchmetrics import MeanMetric

    with pytest.warns(UserWarning, match="was called before"):
        MeanMetric().compute()
    with warnings.catch_warnings(action="error"), messages.without_compute_warning():
        MeanMetric().compute()


@pytest.mark.relies_on("safetensors: number of the operating system's error")
def test_safetensors_names_the_error_of_the_operating_system(tmp_path):
    with pytest.raises(SafetensorError) as error:
        save_file({"weight": torch.ones(1)}, str(tmp_path / "missing" / "file"))
    assert messages.safetensors_error_number(str(error.value)) == errno.ENOENT
    assert messages.safetensors_error_number("no number") is None


CUDA = "import torch; torch.ones(3, device='cuda')[torch.tensor([7], device='cuda')].cpu()"


@pytest.mark.relies_on("torch.cuda: text of a broken CUDA context")
@pytest.mark.parametrize("text", ["CUDA error: device-side assert triggered", None])
def test_a_broken_cuda_context(text):
    if text is None:
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        done = subprocess.run([sys.executable, "-c", CUDA], capture_output=True, text=True, timeout=60, check=False)
        text = done.stderr
    assert messages.is_broken_cuda(text)


@pytest.mark.relies_on("ray.train: text of how a worker process ended")
def test_ray_says_how_a_worker_ended():
    import ray

    raylet = Path(ray.__path__[0], "core/src/ray/raylet/raylet").read_bytes()
    assert b"Worker exit detail: " in raylet
    assert b"Some common causes" in raylet
    text = "died.\nWorker exit type: SYSTEM_ERROR Worker exit detail: killed by SIGKILL Some common causes include"
    assert messages.ray_worker_exit(text) == "killed by SIGKILL"
    assert messages.ray_worker_exit("it died") == "it died"


@pytest.mark.relies_on("ray.job_submission: text of an unknown job")
def test_ray_says_that_it_does_not_know_a_job():
    from ray.dashboard.modules.job import job_head

    assert "Job {job_or_submission_id} does not exist" in inspect.getsource(job_head)
    assert messages.is_unknown_ray_job("Job x does not exist")
    assert not messages.is_unknown_ray_job("Connection refused")
