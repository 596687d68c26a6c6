"""Real launches in folders of their own, killed for real."""

import sys
from pathlib import Path

import pytest

SUPPORT = str(Path(__file__).parents[1] / "support")
if SUPPORT not in sys.path:
    sys.path.append(SUPPORT)

from tests.support.recovery_runs import Place, job  # noqa: E402


@pytest.fixture
def make_place(command_server, tmp_path):
    """Makes folders to launch in: `make_place(name, spec)`, or `like` another."""
    places = []

    def make(name, spec=None, *, like=None, is_program=False):
        if like is not None:
            places.append(like.copy(tmp_path / name))
        else:
            places.append(Place(None if is_program else command_server, tmp_path / name, spec))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture(scope="session")
def references(command_server, tmp_path_factory):
    """Uninterrupted runs by number of ranks, each started when it is first asked for."""
    folder = tmp_path_factory.mktemp("references")
    places = {}

    def get(world_size):
        if world_size not in places:
            places[world_size] = Place(command_server, folder / str(world_size), job(resources={"workers": world_size}))
            places[world_size].start()
        return places[world_size]

    yield get
    for place in places.values():
        place.close()
