"""Runs on an object store, looked at by a reader of their own."""

import itertools
import uuid
from collections import defaultdict

from distrib.runs.layout import RunLayout
from distrib.runs.run import Run
from distrib.runs.storage.object_store import ObjectStorage
from tests.support.recovery_runs import RUN, Place
from tests.support.s3_server import BUCKET, environment


class StorePlace(Place):
    """A folder with a job whose runs lie in a bucket; each host has a cache of its own.

    Attributes:
        runs: The URL of its runs.
    """

    def __init__(self, server, folder, spec, endpoint):
        super().__init__(server, folder, spec)
        self.runs = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        self.endpoint = endpoint
        self._downloads = itertools.count()
        self.be_host("first")

    def be_host(self, name):
        """Makes further launches happen as if on another host."""
        self.cache = self.folder / name
        self.environment = {**environment(self.endpoint), "DISTRIB_CACHE_DIR": str(self.cache)}

    def start(self, *arguments, **options):
        return super().start(*arguments, runs=self.runs, **options)

    @property
    def store(self):
        return ObjectStorage(f"{self.runs}/{RUN}", patience_seconds=5)

    @property
    def layout(self):
        """A copy of what the store has now."""
        layout = RunLayout(self.folder / "downloads" / str(next(self._downloads)) / RUN)
        grown = defaultdict(list)
        for name in self.store.list():
            folder = name.rpartition("/")[0]
            if folder == "metrics" or folder.startswith("samples/"):
                grown[folder].append(name)
            else:
                self.store.get_file(name, layout.folder / name)
        for folder, names in grown.items():
            file = layout.metrics_file if folder == "metrics" else layout.folder / f"{folder}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"".join(map(self.store.get, sorted(names))))
        return layout

    @property
    def run(self):
        return Run(self.layout.folder)

    def committed(self):
        names = [name.split("/")[1] for name in self.store.list("checkpoints") if name.endswith("/COMMITTED")]
        return sorted(int(name.split("-")[1]) for name in names)
