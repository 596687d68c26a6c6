"""`distrib scale --predict` and `--compare`, which start no ranks."""

import json
import subprocess
import sys

import pytest

from tests.support.scale_results import LINK, make_result


def scale(*arguments):
    command = [sys.executable, "-m", "distrib", "scale", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two experiments, the second with weak scaling, and damaged or insufficient files."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "strong.json").write_text(json.dumps(make_result().as_data()))
    (folder / "weak.json").write_text(json.dumps(make_result(mode="weak").as_data()))
    damaged = make_result().as_data()
    damaged["sizes"][1]["step_seconds"] = "fast"
    (folder / "damaged.json").write_text(json.dumps(damaged))
    (folder / "single.json").write_text(json.dumps(make_result(workers=(2,)).as_data()))
    return folder


def test_a_prediction_as_json(results):
    ended = scale("--predict", results / "strong.json", "--workers", "8,1024", "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert [row["workers"] for row in told["predictions"]] == [8, 1024]
    assert told["beta_seconds_per_byte"] == pytest.approx(LINK.beta_seconds_per_byte, rel=0.1)
    for row in told["predictions"]:
        assert row["range"][0] <= row["step_seconds"] <= row["range"][1]


def test_a_faster_link_brings_more(results):
    seconds = []
    for options in ([], ["--link", "400gbit"]):
        ended = scale("--predict", results / "strong.json", "--workers", "8", "--json", *options)
        seconds.append(json.loads(ended.stdout)["predictions"][0]["step_seconds"])
    assert seconds[1] < seconds[0]


def test_two_experiments_side_by_side(results):
    ended = scale("--compare", results / "strong.json", results / "weak.json")
    assert ended.returncode == 0, ended.stderr
    assert "they differ in mode: strong, weak" in ended.stdout
    assert ended.stdout.splitlines()[0].split()[0] == "workers"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predict", "strong.json", "--workers", "8", "--link", "fast"], "--link: 'fast' is not a bandwidth"),
        (["--predict", "single.json", "--workers", "8"], "at least two measured sizes"),
        (["--predict", "strong.json"], "--workers"),
        (["--predict", "damaged.json", "--workers", "8"], "is damaged: sizes.1."),
        (["--compare", "strong.json", "none.json"], "none.json cannot be read"),
        (["--predict", "strong.json", "--compare", "strong.json", "weak.json"], "give one of"),
    ],
)
def test_ambiguous_measurements_are_refused(results, arguments, message):
    ended = scale(*(results / argument if argument.endswith(".json") else argument for argument in arguments))
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
