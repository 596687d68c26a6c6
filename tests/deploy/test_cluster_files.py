"""The files for Ray's cluster launcher by Ray's own schema, and the image's by hadolint."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
CLUSTERS = ("aws", "gcp", "onprem")


@pytest.fixture(params=CLUSTERS)
def cluster(request):
    return yaml.safe_load((ROOT / "cluster" / f"{request.param}.yaml").read_text())


def start_commands(cluster):
    """The environment and the options of each `ray start`, the head's first."""
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        (command,) = [command for command in commands if "ray start" in command]
        environment, _, options = command.rpartition(";")[2].partition("ray start")
        yield command, dict(word.split("=") for word in environment.split()), shlex.split(options)


def test_ray_takes_it(cluster):
    validate_config(prepare_config(cluster))


def test_a_token_is_asked_for_and_the_dashboard_is_not_in_the_network(cluster):
    (head, _, head_options), *_ = found = list(start_commands(cluster))
    for _, environment, _ in found:
        assert environment["RAY_AUTH_MODE"] == "token"
    assert "--dashboard-host=127.0.0.1" in head_options
    assert ". ~/head.env" in head
    mounted = cluster["file_mounts"]
    assert mounted["/home/distrib/.ray/auth_token"].endswith("ray_token")
    assert (ROOT / mounted["/home/distrib/head.env"]).is_file()


def test_the_head_trains_nothing_and_spot_hosts_grow_from_nothing(cluster):
    if cluster["provider"]["type"] == "local":
        (_, _, options), _ = start_commands(cluster)
        assert {"--num-cpus=0", "--num-gpus=0"} <= set(options)
        assert cluster["min_workers"] <= cluster["max_workers"] == len(cluster["provider"]["worker_ips"])
        return
    kinds = cluster["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    spot = kinds["gpu_spot"]
    assert (spot["min_workers"], spot["labels"], spot["resources"]["GPU"]) == (0, {"market": "spot"}, 1)
    config = str(spot["node_config"]).lower()
    assert "spot" in config
    assert "spot" not in str(kinds["gpu"]["node_config"]).lower()


def test_what_is_installed_is_pinned(cluster):
    for command in cluster.get("head_setup_commands", []):
        packages = command.partition("--quiet")[2].split()
        assert packages
        assert all("==" in package for package in packages)
    assert re.search(r":\d+\.\d+\.\d+", cluster["docker"]["image"])


def test_the_three_commands_are_in_the_file():
    for name in CLUSTERS:
        text = (ROOT / "cluster" / f"{name}.yaml").read_text()
        for command in ("ray up", "ray dashboard", "distrib submit JOB --address http://127.0.0.1:8265"):
            assert re.search(rf"^# +.*{re.escape(command)}", text, re.MULTILINE), (name, command)


def test_the_image_passes_the_linter_and_is_not_root():
    file = ROOT / "cluster" / "Dockerfile"
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = file.read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"]
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert "RAY_AUTH_MODE=token" in text
