"""What forked ranks may inherit of the datasets that the launcher has built."""

import pytest

pytestmark = pytest.mark.timeout(90)


def test_each_rank_opens_a_file_of_its_own(workplace):
    """Ranks that shared one position in the file would read each other's samples."""
    data = f"{{target: launch_jobs:FileSamples, args: {{path: {workplace.folder / 'samples'}, count: 400}}}}"
    launch = workplace.start("--set", f"data.train={data}")
    assert launch.wait(60) == 0, launch.stdout
    assert launch.run.status == "finished"


def test_loader_workers_open_no_file_of_their_own_but_read_right(workplace):
    data = f"{{target: launch_jobs:LoadedSamples, args: {{count: 40, notes: {workplace.notes}}}}}"
    launch = workplace.start("--set", f"data.train={data}", "--set", "data.loader_workers=2")
    assert launch.wait(60) == 0, launch.stdout
    assert len({pid for pid, _ in workplace.noted("loader")}) == 4
    assert len(workplace.noted("loader")) == 3 * 40
