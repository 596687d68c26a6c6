"""An S3 server for the tests of this folder."""

from tests.support.s3_fixtures import bucket, s3_proxy, s3_server  # noqa: F401 - fixtures
