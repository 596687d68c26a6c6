"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrib.observe.trackers.tracker import TrackedRun, metrics_of

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes scalars, and the job's fields as text.

    The event files are written by TensorBoard's own writer, which needs neither torch nor TensorFlow.

    Args:
        folder: Where to write; by default `tensorboard` in the run's folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def start(self, run: TrackedRun) -> None:
        """Opens a new event file beside those of earlier launches."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run.folder / FOLDER if self._folder is None else Path(self._folder).expanduser() / run.id
        is_new = not folder.exists()
        self._writer = EventFileWriter(str(folder))
        if is_new:
            self._write_parameters(run.parameters)

    def log(self, event: Mapping[str, Any]) -> None:
        """Writes the values of an event at its step and time."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics_of(event).items()]
        if values and self._writer is not None:
            record = Event(step=event["step"], wall_time=event["time"], summary=Summary(value=values))
            self._writer.add_event(record)
            self._writer.flush()

    def finish(self, status: str) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()

    def _write_parameters(self, parameters: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        rows = "\n".join(f"| {name} | {value} |" for name, value in parameters.items())
        text = f"| field | value |\n| --- | --- |\n{rows}"
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        value = Summary.Value(tag="job", metadata=metadata, tensor=tensor)
        assert self._writer is not None
        self._writer.add_event(Event(step=0, summary=Summary(value=[value])))
