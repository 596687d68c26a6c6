"""Compose files: equal in every number to the plan, and refused where they cannot be."""

import pytest
import yaml

from distrib.deploy.compose.api import Compose
from distrib.errors import JobError
from tests.deploy.conftest import ELASTIC, FOLDER, GPU, STORE
from tests.support.rendered import request_of_command

CASES = {
    "digits": ((FOLDER,), (), 2, 1),
    "elastic": ((*ELASTIC, FOLDER), (), 2, 3),
    "gpu": ((*GPU, STORE), ("env_file=store.env",), 2, 4),
    "one host": ((*GPU, STORE, "resources.placement=strict_pack"), ("env_file=store.env",), 2, 8),
    "a host each": ((FOLDER, "resources.workers=3", "resources.placement=strict_spread"), (), 3, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_the_plans_and_the_request_can_be_read_back(render, case):
    overrides, settings, num_hosts, per_host = CASES[case]
    deployment, text = render("compose", *overrides, settings=settings)
    compose = Compose.model_validate(yaml.safe_load(text))
    request = deployment.request
    assert list(compose.services) == [f"host{number}" for number in range(1, num_hosts + 1)]
    devices = []
    for name, service in compose.services.items():
        start, command = split(service.command)
        assert request_of_command(command[:-2]) == request
        assert command[-2:] == ["--address", "host1:6379"]
        assert start["--min-nodes"] == str(num_hosts)
        assert start["--num-cpus"] == str(per_host * request.cpus_per_worker)
        assert start["--num-gpus"] == str(per_host if request.device == "cuda" else 0)
        memory = None if request.memory_bytes is None else str(per_host * request.memory_bytes)
        assert start.get("--memory") == memory
        assert start["--dashboard-host"] == "127.0.0.1"
        assert service.hostname == name
        if service.deploy is not None:
            devices += service.deploy.resources.reservations.devices[0].device_ids
    assert len(devices) == len(set(devices)) == (num_hosts * per_host if request.device == "cuda" else 0)


def split(command):
    """The options of `ray symmetric-run`, and the command that it runs."""
    assert command[:2] == ["ray", "symmetric-run"]
    words = iter(command[2:])
    options = {}
    for word in words:
        if word == "--":
            return options, list(words)
        name, equals, value = word.partition("=")
        options[name] = value if equals or name == "--disable-usage-stats" else next(words)
    raise AssertionError(command)


def test_the_token_is_a_file_that_containers_are_shown(render):
    _, text = render("compose", FOLDER, settings=("token_file=/etc/token",))
    data = yaml.safe_load(text)
    assert data["secrets"] == {"ray_token": {"file": "/etc/token"}}
    for service in data["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"


def test_dollars_are_kept_from_compose(render):
    deployment, text = render("compose", FOLDER, "model.args.note='${HOME}'", variables={"NOTE": "${X}"})
    service = yaml.safe_load(text)["services"]["host1"]
    assert "--set=model.args.note='$${HOME}'" in service["command"]
    assert service["environment"]["NOTE"] == "$${X}"
    assert "--set=model.args.note='${HOME}'" in deployment.command


@pytest.mark.parametrize(
    ("overrides", "settings", "options", "message"),
    [
        ((STORE,), (), {}, r"--with: containers need credentials for s3://bucket/runs"),
        ((FOLDER, "resources.labels={zone: 'in(a,b)'}"), (), {}, r"resources.labels.zone: .*in\(a,b\)"),
        ((FOLDER, "resources.placement=strict_pack"), ("workers_per_host=1",), {}, r"resources.placement: strict_pack"),
        ((FOLDER,), ("user=root",), {}, r"--with: user=root: "),
        ((FOLDER,), (), {"packages": ["numpy"]}, r"--pip: containers use what their image holds"),
    ],
)
def test_what_cannot_be_expressed_names_the_field_and_the_way_out(render, overrides, settings, options, message):
    with pytest.raises(JobError, match=message):
        render("compose", *overrides, settings=settings, **options)
