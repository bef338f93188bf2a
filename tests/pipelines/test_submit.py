"""Submitting to a Kubeflow Pipelines API: a server on this machine that records what it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.cluster import submit

IMAGE = f"registry.example/querylift@sha256:{'a' * 64}"


class Api:
    """The four calls that the client makes."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.refuses = False
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/healthz"):
                    self.answer({"multi_user": False})
                else:
                    experiment = {"experiment_id": "e1", "display_name": "Default"}
                    self.answer({"experiments": [experiment], "total_size": 1})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if api.refuses:
                    self.answer({"error": "no such parameter"}, code=400)
                else:
                    api.runs.append(body)
                    self.answer({"run_id": "r1", "display_name": body["display_name"]})

            def answer(self, content: dict[str, Any], code: int = 200) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api() -> Iterator[Api]:
    running = Api()
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


def test_a_run_is_started_with_its_arguments(api: Api) -> None:
    run = submit(
        api.host,
        IMAGE,
        ["s3://shop/2026-11-01", "s3://esci/1"],
        "smoke",
        ["seed=1"],
        gpus=1,
        tracking_uri="http://mlflow:5000",
    )
    assert run == "r1"
    (sent,) = api.runs
    assert sent["runtime_config"]["parameters"] == {
        "data": ["s3://shop/2026-11-01", "s3://esci/1"],
        "recipe": "smoke",
        "overrides": ["seed=1"],
        "tracking_uri": "http://mlflow:5000",
    }
    assert IMAGE in json.dumps(sent["pipeline_spec"])
    assert sent["experiment_id"] == "e1"


def test_wrong_settings_are_refused_before_anything_is_sent(api: Api) -> None:
    with pytest.raises(ValueError, match="has no digest"):
        submit(api.host, "repo/train:1", "s3://shop/1", "smoke")
    with pytest.raises(ValueError, match="recipe 'x': unknown"):
        submit(api.host, IMAGE, "s3://shop/1", "x")
    assert api.runs == []


def test_a_server_that_refuses_or_is_away_is_one_line(api: Api) -> None:
    api.refuses = True
    with pytest.raises(OSError, match=f"^{api.host}: .*no such parameter") as refused:
        submit(api.host, IMAGE, "s3://shop/1", "smoke")
    assert "\n" not in str(refused.value)
    with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:9: .*Connection refused"):
        submit("http://127.0.0.1:9", IMAGE, "s3://shop/1", "smoke")
