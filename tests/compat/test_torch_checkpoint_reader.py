"""A checkpoint's pickled metadata is read as every Python version pickles it, and nothing else in it is run."""

import io
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)

from distrib.compat.messages import without_disabled_warning
from distrib.compat.torch_checkpoint_reader import SafeReader

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
    found = SafeReader(tmp_path).read_metadata().state_dict_metadata["weight"]
    assert found.size == torch.Size([3])
    assert found.properties.memory_format is torch.contiguous_format


@pytest.mark.parametrize(
    "arguments", [(torch.Size, "__class__"), (_MEM_FORMAT_ENCODING, "__class__"), (FORMAT, "name")]
)
def test_no_other_attribute_is_had(tmp_path, arguments):
    write(tmp_path, _Asks(*arguments))
    with pytest.raises(pickle.UnpicklingError, match="which does not belong in metadata"):
        SafeReader(tmp_path).read_metadata()


def test_without_the_enum_metadata_that_names_it_is_refused(tmp_path, monkeypatch):
    write(tmp_path, _Asks(_MEM_FORMAT_ENCODING, "TORCH_CONTIGUOUS_FORMAT"))
    monkeypatch.delattr(dcp_metadata, "_MEM_FORMAT_ENCODING")
    with pytest.raises((pickle.UnpicklingError, AttributeError)):
        SafeReader(tmp_path).read_metadata()


@pytest.mark.relies_on(
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.serialization._get_layout",
)
def test_what_dcp_writes_consists_of_allowed_classes(tmp_path):
    with without_disabled_warning():
        dcp.save({"weight": torch.ones(3, 4)}, checkpoint_id=tmp_path, no_dist=True)
    metadata = SafeReader(tmp_path).read_metadata()
    assert metadata.state_dict_metadata["weight"].properties.layout == torch.strided
    assert {info.relative_path for info in metadata.storage_data.values()} == {"__0_0.distcp"}
