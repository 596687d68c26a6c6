"""Where runs can be kept."""

from pathlib import Path

import pytest

from distrib.runs.storage.location import as_folder, is_url, join, problem_of, split


@pytest.mark.parametrize(
    "location", ["runs", "/a/b", "~/runs", "file:///a/b", "s3://bucket", "s3://b-1/a/b/", "gs://b.c/x"]
)
def test_right_ones(location):
    assert problem_of(location) is None
    assert is_url(location) == location.startswith(("s3", "gs"))


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("hdfs://a/b", "'hdfs://' is not supported; use a folder, s3://"),
        ("S3://a/b", "'S3://' is not supported"),
        ("file://runs", "write file:///path, or just the path"),
        ("s3://", "'' cannot be a bucket's name; write s3://bucket/prefix"),
        ("s3:///a", "'' cannot be a bucket's name"),
        ("s3://key:secret@bucket/a", "leave credentials and addresses out"),
        ("s3://localhost:9000/bucket", "leave credentials and addresses out"),
        ("s3://bucket/a?region=x", "leave options out of the URL"),
        ("s3://bucket//a", "an empty name"),
        ("s3://bucket/a/../b", "'..' between its slashes"),
    ],
)
def test_wrong_ones(location, problem):
    assert problem in problem_of(location)


def test_names():
    assert join("s3://bucket/a/", "run") == "s3://bucket/a/run"
    assert split("s3://bucket/a/run/") == ("s3://bucket/a", "run")
    assert as_folder("file:///a/b%20c") == Path("/a/b c")
    assert as_folder("~/x") == Path.home() / "x"
