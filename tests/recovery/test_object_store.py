"""Runs on an object store: killed, resumed on another host, refused for a while."""

import signal
import time

import pytest

from distrib.runs.storage.object_store import ObjectStorage
from distrib.runs.storage.store.lease import FREE
from tests.support.recovery_runs import Place, assert_same, job
from tests.support.s3_server import BUCKET, Proxy, S3Server, environment
from tests.support.store_runs import StorePlace

pytestmark = pytest.mark.timeout(120)

STEPS = 52
SPEC = job(train={"steps": STEPS})


@pytest.fixture(scope="module")
def s3():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def reference(command_server, tmp_path_factory):
    """An uninterrupted run in a folder."""
    place = Place(command_server, tmp_path_factory.mktemp("store") / "reference", SPEC)
    place.start()
    yield place
    place.close()


@pytest.fixture
def make_store_place(command_server, s3, tmp_path, monkeypatch):
    for name, value in environment(s3.endpoint).items():
        monkeypatch.setenv(name, value)
    places = []

    def make(spec=SPEC, endpoint=s3.endpoint):
        places.append(StorePlace(command_server, tmp_path / f"place-{len(places)}", spec, endpoint))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture
def proxy(s3):
    proxy = Proxy(s3)
    yield proxy
    proxy.close()


def test_a_launcher_that_is_killed_is_followed_by_one_on_another_host(make_store_place, reference):
    place = make_store_place()
    place.plan(
        [
            {"moment": "commit", "rank": 0, "nth": 3, "victim": "launcher"},
            {"moment": "updated", "rank": 1, "nth": 9, "victim": "self"},
        ]
    )
    assert place.start().wait(60) == -signal.SIGKILL
    assert place.committed() == [7, 14]  # the third was committed in the mirror alone
    newest = max(event["step"] for event in place.events("train"))
    assert newest >= 14
    place.be_host("second")
    place.finish()
    assert_same(place, reference, 2, STEPS)
    assert [event["step"] for event in place.events("restart")] == [14]
    assert place.committed() == [49, 52]
    assert {name.split("/")[0] for name in place.store.list()} == {
        *(
            "best.safetensors",
            "checkpoints",
            "job.yaml",
            "lease.json",
            "logs",
            "metrics",
            "model.safetensors",
            "run.json",
        ),
        "samples",
    }


def test_an_attempt_after_a_lost_rank(make_store_place, reference):
    place = make_store_place()
    place.plan([{"moment": "updated", "rank": 0, "nth": 30, "victim": "self"}])
    place.finish()
    assert_same(place, reference, 2, STEPS)
    (restart,) = place.events("restart")
    assert restart["message"].startswith("rank 0 on ")


def test_a_damaged_checkpoint_is_passed_over(make_store_place, reference):
    place = make_store_place()
    place.stop_at(21)
    newest = max(name for name in place.store.list("checkpoints") if name.endswith("COMMITTED")).split("/")[1]
    file = f"checkpoints/{newest}/__1_0.distcp"
    content = bytearray(place.store.get(file))
    content[len(content) // 2] ^= 1
    place.store.put(file, bytes(content))
    place.be_host("second")
    place.finish()
    assert f"{newest}/__1_0.distcp: its content differs from the manifest" in place.warnings()[0]
    assert b"__1_0.distcp" in place.store.get(f"checkpoints/{newest}/DAMAGED")
    assert_same(place, reference, 2, STEPS)


def test_credentials_that_are_refused_for_a_while(make_store_place, proxy, reference):
    """Training goes on, earlier checkpoints stay, and the run ends as if nothing had been."""
    place = make_store_place(endpoint=proxy.endpoint)
    launch = place.start()
    launch.wait_until(lambda: len(place.committed()) == 2)
    proxy.answer(403, "AccessDenied", method="PUT", path="checkpoints/")
    launch.wait_until(lambda: "was not kept" in launch.output)
    kept = place.committed()
    proxy.heal()
    assert launch.wait(60) == 0, launch.output
    warning = place.warnings()[0]
    assert "was not kept, the ones before it stand: cannot write s3://" in warning
    assert "ACCESS_DENIED: so the test says; check the credentials" in warning
    assert len(kept) == 2
    assert_same(place, reference, 2, STEPS)


def test_a_store_that_stops_for_good_fails_the_run(make_store_place, proxy):
    place = make_store_place(endpoint=proxy.endpoint)
    launch = place.start()
    launch.wait_until(lambda: place.committed())
    proxy.answer(403, "AccessDenied", method="PUT")
    proxy.answer(403, "AccessDenied", method="POST")
    assert launch.wait(60) == 1
    assert "weights were not kept: cannot write s3://" in launch.output
    assert "Traceback" not in launch.output
    assert place.committed()
    assert place.run.record["status"] == "running"  # which is all that the store could be told


def test_a_second_launcher_is_refused_wherever_it_is(make_store_place):
    place = make_store_place(job(train={"steps": 100000}))
    first = place.start()
    first.wait_until(lambda: place.committed())
    place.be_host("second")
    second = place.start()
    assert second.wait(60) == 3
    assert f"run run is held by process {first.pid} on " in second.output
    first.send(signal.SIGTERM)
    assert first.wait(60) == 130
    assert place.store.get("lease.json") == FREE


def test_extend_and_fresh(make_store_place):
    place = make_store_place(job(train={"steps": 7}, checkpoint={"best": None}))
    place.finish()
    again = place.finish()
    assert "run has finished already" in again.output
    place.finish("--extend", "--set", "train.steps=14")
    assert place.committed() == [7, 14]
    place.finish("--fresh")
    assert ObjectStorage(place.runs).folders() == ["run", "run-2"]


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 3, "check the network, and AWS_ENDPOINT_URL"),
        ({"refuse": "InvalidAccessKeyId"}, 2, "check the credentials"),
        ({"bucket": "nowhere"}, 2, "create the bucket, or correct the URL"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_at_once(make_store_place, proxy, wrong, code, message):
    place = make_store_place(endpoint=wrong.get("AWS_ENDPOINT_URL", proxy.endpoint))
    place.runs = f"s3://{wrong.get('bucket', BUCKET)}/runs"
    if "refuse" in wrong:
        proxy.answer(403, wrong["refuse"])
    started = time.monotonic()
    launch = place.start()
    assert launch.wait(60) == code
    assert time.monotonic() - started < 40
    assert "distrib: storage: cannot write s3://" in launch.output
    assert message in launch.output
    assert not place.cache.exists()
