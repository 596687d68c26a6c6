"""A checkpoint's pickled metadata is read as every Python version pickles it, and nothing else in it is run."""

import io
import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from distrib.compat.pytorch.checkpoint_reader import StoredChunk, StoredEntry, read_metadata, read_tensors

FORMAT = _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT


class _ByGetattr(pickle.Pickler):
    """Pickles members of enums as Python 3.11.2, which Debian 12 has, does, by getattr."""

    def reducer_override(self, value):
        is_member = isinstance(value, _MEM_FORMAT_ENCODING)
        return (getattr, (type(value), value.name)) if is_member else NotImplemented


class _ByValue(pickle.Pickler):
    """The same by value, as later ones do."""

    def reducer_override(self, value):
        return (type(value), (value.value,)) if isinstance(value, _MEM_FORMAT_ENCODING) else NotImplemented


class _Asks:
    """Pickles as a call of getattr."""

    def __init__(self, *arguments):
        self._arguments = arguments

    def __reduce__(self):
        return getattr, self._arguments


def write(folder, value, pickler=pickle.Pickler):
    buffer = io.BytesIO()
    pickler(buffer).dump(value)
    (folder / ".metadata").write_bytes(buffer.getvalue())


@pytest.mark.relies_on("torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING")
@pytest.mark.parametrize("pickler", [_ByGetattr, _ByValue])
def test_metadata_of_every_python_is_read(tmp_path, pickler):
    entry = TensorStorageMetadata(
        TensorProperties(torch.float64, memory_format=torch.contiguous_format), torch.Size([3]), []
    )
    write(tmp_path, Metadata({"weight": entry}), pickler)
    found = read_metadata(tmp_path)["weight"]
    assert found.size == torch.Size([3])
    assert found.dtype == torch.float64


@pytest.mark.relies_on("pathlib._local.PosixPath")
@pytest.mark.parametrize("module", [b"pathlib", b"pathlib._local"])
def test_the_folder_in_metadata_of_every_python_is_read(tmp_path, module):
    text = pickle.dumps(Metadata({}, storage_meta=StorageMeta(tmp_path)), protocol=2)
    name = b"c" + type(tmp_path).__module__.encode() + b"\nPosixPath\n"
    assert name in text
    (tmp_path / ".metadata").write_bytes(text.replace(name, b"c" + module + b"\nPosixPath\n"))
    assert read_metadata(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments", [(torch.Size, "__class__"), (_MEM_FORMAT_ENCODING, "__class__"), (FORMAT, "name")]
)
def test_no_other_attribute_is_had(tmp_path, arguments):
    write(tmp_path, _Asks(*arguments))
    with pytest.raises(pickle.UnpicklingError, match="which does not belong in metadata"):
        read_metadata(tmp_path)


@pytest.mark.relies_on(
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.serialization._get_layout",
)
def test_what_dcp_writes_is_read(tmp_path):
    tensors = {"weight": torch.randn(3, 4), "count": torch.tensor(7), "half": torch.ones(2, 3, dtype=torch.bfloat16).T}
    save_by_dcp(tensors, tmp_path)
    entries = read_metadata(tmp_path)
    assert {name: (entry.size, entry.dtype) for name, entry in entries.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()
    }
    assert {chunk.file for entry in entries.values() for chunk in entry.chunks} == {"__0_0.distcp"}
    found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    read_tensors(tmp_path, entries, found)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_tensor_in_several_chunks_is_read(tmp_path):
    """As DCP writes a tensor whose parts are on several ranks."""
    whole = torch.arange(10.0).reshape(5, 2)
    (tmp_path / "file").write_bytes(b"".join(parts := [saved(whole[:3]), saved(whole[3:])]))
    chunks = (StoredChunk((0, 0), "file", 0, len(parts[0])), StoredChunk((3, 0), "file", len(parts[0]), len(parts[1])))
    found = {"weight": torch.zeros(5, 2)}
    read_tensors(tmp_path, {"weight": StoredEntry(whole.shape, whole.dtype, chunks)}, found)
    assert torch.equal(found["weight"], whole)


def test_another_shape_is_refused(tmp_path):
    save_by_dcp({"weight": torch.zeros(3, 1)}, tmp_path)
    with pytest.raises(ValueError, match=r"weight has shape \(3, 4\); the checkpoint has \(3, 1\)"):
        read_tensors(tmp_path, read_metadata(tmp_path), {"weight": torch.zeros(3, 4)})


def test_a_tensor_that_is_not_whole_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(part := saved(torch.ones(2)))
    for chunks in [(), (StoredChunk((0,), "file", 0, len(part)),)]:
        with pytest.raises(ValueError, match="weight is not whole in the checkpoint"):
            read_tensors(
                tmp_path, {"weight": StoredEntry(torch.Size([3]), torch.float32, chunks)}, {"weight": torch.ones(3)}
            )


def saved(tensor):
    buffer = io.BytesIO()
    torch.save(tensor.clone(), buffer)
    return buffer.getvalue()


def save_by_dcp(tensors, folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.save(tensors, checkpoint_id=folder, no_dist=True)
