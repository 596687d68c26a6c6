"""Checkpoints are in the format of torch.distributed.checkpoint, written and read without importing it."""

import subprocess
import sys
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from distrib.compat.pytorch.checkpoint import METADATA, dump_metadata, tensor_file, write_tensors
from distrib.compat.pytorch.checkpoint_reader import read_metadata, read_tensors

TENSORS = [
    {"model/weight": torch.randn(3, 4), "model/bänd": torch.zeros(0, 2), "count": torch.tensor(7)},
    {
        "format": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.ones(5, dtype=torch.bfloat16),
    },
]


def write(folder):
    """Writes the tensors of two ranks."""
    written = []
    for rank, tensors in enumerate(TENSORS):
        with (folder / tensor_file(rank)).open("wb") as stream:
            written += write_tensors(stream, tensor_file(rank), tensors)
    (folder / METADATA).write_bytes(dump_metadata(written))
    return {**TENSORS[0], **TENSORS[1]}


def assert_read(read, tensors):
    found = {name: torch.full_like(tensor, 9) for name, tensor in tensors.items()}
    read(found)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].stride() == tensor.stride(), name


@pytest.mark.relies_on(
    "torch.distributed.checkpoint.metadata: classes and fields of the pickled metadata, version 1.0.0",
    "torch.distributed.checkpoint.filesystem._metadata_fn",
    "torch.distributed.checkpoint: names of a rank's files, __RANK_*.distcp",
)
def test_dcp_reads_what_is_written(tmp_path):
    assert filesystem._metadata_fn == METADATA
    tensors = write(tmp_path)
    reader = dcp.FileSystemReader(tmp_path)
    metadata = reader.read_metadata()
    assert isinstance(metadata, Metadata)
    assert isinstance(metadata.storage_meta, StorageMeta)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        assert_read(lambda found: dcp.load(found, checkpoint_id=tmp_path, no_dist=True), tensors)


def test_it_is_what_dcp_would_have_written(tmp_path):
    write(tmp_path)
    ours = dcp.FileSystemReader(tmp_path).read_metadata()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.save(TENSORS[0], checkpoint_id=tmp_path / "theirs", no_dist=True)
    theirs = dcp.FileSystemReader(tmp_path / "theirs").read_metadata()
    for name in TENSORS[0]:
        expected = theirs.state_dict_metadata[name]
        if hasattr(expected.properties, "strides"):  # torch 2.15 and later; None, as in older checkpoints, is unknown
            expected.properties.strides = None
        assert ours.state_dict_metadata[name] == expected
        assert ours.planner_data[name] == theirs.planner_data[name]
    assert ours.storage_data.keys() >= theirs.storage_data.keys()
    assert ours.version == theirs.version
    assert (tmp_path / tensor_file(0)).name == next((tmp_path / "theirs").glob("*.distcp")).name


def test_we_read_it_too(tmp_path):
    tensors = write(tmp_path)
    assert_read(lambda found: read_tensors(tmp_path, read_metadata(tmp_path), found), tensors)


PROGRAM = """
import sys, torch
from pathlib import Path
import distrib.train.checkpoint.checkpointer, distrib.train.checkpoint.restore
from distrib.compat.pytorch.checkpoint import METADATA, dump_metadata, write_tensors
from distrib.compat.pytorch.checkpoint_reader import read_metadata, read_tensors

folder = Path(sys.argv[1])
with (folder / "file").open("wb") as stream:
    written = write_tensors(stream, "file", {"a": torch.ones(3)})
(folder / METADATA).write_bytes(dump_metadata(written))
target = torch.zeros(3)
read_tensors(folder, read_metadata(folder), {"a": target})
heavy = ("torch.distributed.checkpoint", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy")
print(target.tolist(), [name for name in heavy if name in sys.modules])
"""


def test_nothing_of_dcp_is_imported(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0, 1.0, 1.0] []\n"
