"""Every test runs the real command, in a folder of its own or of its module."""

import pytest

from tests.support.launch_process import Workplace


@pytest.fixture
def workplace(tmp_path):
    """A folder to launch in, for one test."""
    place = Workplace(tmp_path)
    yield place
    place.close()


@pytest.fixture
def quick_workplace(tmp_path, command_server):
    """The same for a test of what the command does, not of how its interpreter starts: launches are forks."""
    place = Workplace(tmp_path, command_server)
    yield place
    place.close()


@pytest.fixture(scope="module")
def shared_workplace(tmp_path_factory):
    """A folder to launch in, for all tests of a module."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    yield place
    place.close()
