"""Fixtures of an S3 server; a folder's conftest imports those that its tests need."""

import uuid

import pytest

from distrib.runs.storage.object_store import ObjectStorage
from tests.support.s3_server import BUCKET, Proxy, S3Server, environment


@pytest.fixture(scope="session")
def s3_server():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_proxy(s3_server):
    proxy = Proxy(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path):
    """An empty storage on a real server; what is kept of it on this host goes to the test's own folder."""
    for name, value in environment(s3_server.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DISTRIB_CACHE_DIR", str(tmp_path / "cache"))
    return ObjectStorage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
