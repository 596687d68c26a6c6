"""The service from a client's view: responses, rejected requests, load, slow clients, tokens and shutdown."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy
import pytest
import torch

from tests.inference.conftest import REPOSITORY
from tests.support.inference_jobs import Rows
from tests.support.inference_runs import JOB, expected_outputs, make_model, make_run
from tests.support.launch_process import Workplace
from tests.support.serving import Service, read_to_end

pytestmark = pytest.mark.timeout(120)

TOKEN = "a-token-of-the-tests"
JSON = {"content-type": "application/json"}
RAW = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with three runs: an honest one, a fussy one with a `predict` of its own, and a slow one."""
    place = Workplace(tmp_path_factory.mktemp("serve"))
    make_run(place.folder)
    fussy = JOB.replace("Mlp", "Fussy") + "predict: inference_jobs:classify\n"
    make_run(place.folder, job=fussy, run_id="fussy")
    slow = JOB.replace("inference_jobs:Mlp", "{target: inference_jobs:Slow, args: {seconds: 0.5}}")
    make_run(place.folder, job=slow, run_id="slow")
    yield place
    place.close()


@pytest.fixture(scope="module")
def honest(place):
    return Service(place, "made", "--max-body-mb", "1", "--client-timeout", "1")


@pytest.fixture(scope="module")
def slow(place):
    return Service(place, "slow", "--max-batch", "1", "--max-queue", "2")


def inputs(count):
    return Rows(count).tensors[0]


def ask(client, rows, headers=JSON):
    if headers == RAW:
        return client.post("/predict", content=rows.numpy().tobytes(), headers=RAW)
    return client.post("/predict", json={"inputs": rows.tolist()})


def test_the_answers_are_the_models(honest):
    expected = expected_outputs(make_model(), 5)
    with honest.client() as client:
        by_json = torch.tensor(ask(client, inputs(5)).json()["outputs"], dtype=torch.float64)
        answer = ask(client, inputs(5), RAW)
        assert (answer.headers["x-shape"], answer.headers["x-dtype"]) == ("5,3", "float64")
        by_bytes = torch.from_numpy(numpy.frombuffer(answer.content, "<f8").reshape(5, 3).copy())
    torch.testing.assert_close(by_json, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(by_bytes, expected, rtol=0, atol=1e-12)


def test_many_at_once_get_each_their_own(honest):
    expected = expected_outputs(make_model(), 40)
    rows = inputs(40)
    wrong = []

    def check(index):
        with honest.client() as client:
            for _ in range(5):
                answer = torch.tensor(ask(client, rows[index : index + 1]).json()["outputs"], dtype=torch.float64)
                if not torch.allclose(answer, expected[index : index + 1], rtol=0, atol=1e-12):
                    wrong.append(index)

    threads = [threading.Thread(target=check, args=[index]) for index in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


BAD = {
    "malformed": (b'{"inputs": [[1, 2', JSON, 400),
    "a wrong shape": (b'{"inputs": [[1, 2]]}', JSON, 422),
    "a wrong type": (b'{"inputs": [["a", 1, 2, 3]]}', JSON, 422),
    "NaN": (b'{"inputs": [[NaN, 1, 2, 3]]}', JSON, 400),
    "raw NaN": (numpy.float64([float("nan"), 1, 2, 3]).tobytes(), RAW, 422),
    "a part of a row": (b"123", RAW, 422),
    "too many rows": (json.dumps({"inputs": [[0.0] * 4] * 65}).encode(), JSON, 413),
    "huge": (b" " * 8_000_000, JSON, 413),
    "no type": (b"{}", {}, 415),
    "a form": (b"inputs=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
}


@pytest.mark.parametrize(("content", "headers", "status"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused_and_the_service_lives(honest, content, headers, status):
    with honest.client() as client:
        answer = client.post("/predict", content=content, headers=headers)
        assert answer.status_code == status
        assert answer.json()["detail"]
        assert ask(client, inputs(1)).status_code == 200


def test_a_huge_body_in_chunks_and_other_methods(honest):
    with honest.client() as client:
        chunks = (b" " * 100_000 for _ in range(30))
        assert client.post("/predict", content=chunks, headers=JSON).status_code == 413
        assert client.get("/predict").status_code == 405
        assert client.get("/nothing").status_code == 404


HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /pre", HEAD, HEAD + b"\r\n{"], ids=["silent", "line", "head", "body"])
def test_slow_clients_are_sent_away(honest, sent):
    with honest.connection() as connection:
        connection.sendall(sent)
        started = time.monotonic()
        answer = read_to_end(connection)
    assert 0.5 < time.monotonic() - started < 30
    assert answer.startswith("HTTP/1.1 408 ")


def test_a_client_that_trickles_is_sent_away_too(honest):
    with honest.connection() as connection:
        started = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")  # a good request first, then a slow one
        assert b"200 OK" in connection.recv(65536)
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 60:
                connection.sendall(b"x")
                time.sleep(0.1)
    assert time.monotonic() - started < 40


LENGTH = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %b\r\n\r\n"


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 nonsense\r\n\r\n", LENGTH % b"-1", LENGTH % (b"9" * 5000)])
def test_what_is_no_http_is_refused(honest, sent):
    with honest.connection() as connection:
        connection.sendall(sent)
        assert read_to_end(connection).startswith(("HTTP/1.1 400 ", "HTTP/1.1 413 "))


def test_health_metrics_and_openapi(honest):
    with honest.client() as client:
        ask(client, inputs(3))
        assert client.get("/healthz").json() == {
            "status": "ok", "run": "made", "weights": "the final weights", "device": "cpu",
        }  # fmt: skip
        metrics = client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=")
        assert 'distrib_requests_total{status="200"}' in metrics.text
        assert "distrib_batch_rows_bucket" in metrics.text
        described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
        row = described["requestBody"]["content"]["application/json"]["schema"]["properties"]["inputs"]["items"]
        assert (row["minItems"], row["maxItems"], row["items"]) == (4, 4, {"type": "number"})
        assert "429" in described["responses"]


def test_named_answers_and_what_the_model_refuses(place):
    service = Service(place, "fussy")
    with service.client() as client:
        outputs = ask(client, inputs(4)).json()["outputs"]
        expected = expected_outputs(make_model("Fussy"), 4).softmax(dim=1)
        assert outputs["label"] == ["abc"[index] for index in expected.argmax(dim=1).tolist()]
        torch.testing.assert_close(torch.tensor(outputs["probabilities"]).double(), expected, rtol=0, atol=1e-6)
        refused = ask(client, inputs(1) + 1000)
        assert refused.status_code == 422
        assert refused.json()["detail"].endswith("ValueError: the first feature must not exceed 100")
        assert ask(client, inputs(1), RAW).status_code == 406
        assert ask(client, inputs(1)).status_code == 200
    service.launch.send(signal.SIGINT)
    assert service.launch.wait(60) == 0


def load(service, body, connections, seconds, rate=0):
    command = [sys.executable, "-m", "tests.support.load_program", service.url, connections, seconds, rate, body]
    result = subprocess.run(
        list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(result.stdout)


def test_no_request_is_lost_at_four_fifths_of_the_capacity(honest, tmp_path):
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"inputs": inputs(1).tolist()}))
    capacity = load(honest, body, 16, 2)
    assert capacity["problems"] == []
    told = load(honest, body, 16, 4, rate=0.8 * capacity["requests_per_second"])
    assert (told["problems"], list(told["statuses"])) == ([], ["200"])
    assert told["num_requests"] >= 50  # how many there can be depends on what else the machine does


def test_overload_is_answered_with_429_and_passes(slow, tmp_path):
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"inputs": inputs(1).tolist()}))
    told = load(slow, body, 8, 2)
    assert told["problems"] == []
    assert told["statuses"].keys() == {"200", "429"}
    with slow.client() as client:
        assert ask(client, inputs(1)).status_code == 200
    with slow.client() as client:
        results = []
        threads = [threading.Thread(target=lambda: results.append(ask(client, inputs(1)))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    refused = [answer for answer in results if answer.status_code == 429]
    assert refused
    assert refused[0].headers["retry-after"] == "1"


def test_sigterm_ends_it_after_what_was_begun_is_answered(slow, place):
    service = slow  # the last test that uses it
    answers = []
    busy = place.folder / "busy"
    busy.unlink(missing_ok=True)

    def post():
        with service.client() as client:
            answers.append(ask(client, inputs(1)))

    thread = threading.Thread(target=post)
    thread.start()
    service.launch.wait_until(busy.exists)
    service.launch.send(signal.SIGTERM)
    assert service.launch.wait(60) == 0
    thread.join(60)
    assert [answer.status_code for answer in answers] == [200]
    assert service.launch.stderr == ""
    service.launch.wait_until_gone()


def serve_in_vain(place, *options, env=None, run="made"):
    command = [sys.executable, "-m", "distrib", "serve", run, "--runs-dir", str(place.runs), *options]
    launch = place.start_command(command, env)
    code = launch.wait(30)
    assert "Traceback" not in launch.stderr
    return code, launch.stderr


def test_other_addresses_need_a_token(place):
    code, message = serve_in_vain(place, "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "can be reached from other machines, so a token is required" in message
    assert serve_in_vain(place, "--host", "0.0.0.0", "--token", "")[0] == 2
    service = Service(place, "made", "--host", "0.0.0.0", env={"DISTRIB_SERVE_TOKEN": TOKEN})
    statuses = {}
    for name, headers in {
        "none": {},
        "wrong": {"authorization": "Bearer wrong"},
        "longer": {"authorization": f"Bearer {TOKEN}x"},
        "another scheme": {"authorization": f"Basic {TOKEN}"},
        "right": {"authorization": f"Bearer {TOKEN}"},
    }.items():
        with service.client(headers=headers) as client:
            statuses[name] = (
                ask(client, inputs(1)).status_code,
                client.get("/metrics").status_code,
                client.get("/openapi.json").status_code,
                client.get("/healthz").status_code,
            )
    refused = (401, 401, 401, 200)
    assert statuses == {"none": refused, "wrong": refused, "longer": refused, "another scheme": refused,
                        "right": (200, 200, 200, 200)}  # fmt: skip
    service.launch.end()


def test_a_port_that_is_taken_and_an_address_that_is_not_there(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, message = serve_in_vain(place, "--port", str(taken.getsockname()[1]))
        assert (code, "in use; choose another --port" in message) == (3, True)
    code, message = serve_in_vain(place, "--host", "no.such.host.invalid")
    assert (code, "is not an address of this machine" in message) == (2, True)


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(place):
    (place.folder / "sitecustomize.py").write_text("import sys; sys.modules['uvicorn'] = None\n")
    hidden = {"PYTHONPATH": f"{place.folder}:{REPOSITORY}"}
    code, message = serve_in_vain(place, env=hidden)
    (place.folder / "sitecustomize.py").unlink()
    assert code == 2
    assert "serve needs uvicorn, which is not installed: pip install 'distrib[serve]'" in message
