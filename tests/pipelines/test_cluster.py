"""Submission to a Kubeflow Pipelines API, spoken to over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import submit

TRAIN = f"registry.example/querylift/train@sha256:{'b' * 64}"


@dataclass
class Cluster:
    """An API server of the four endpoints that starting a run needs."""

    host: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    # kfp reads its defaults from there
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/apis/v2beta1/healthz":
                self.answer({"multi_user": False})
            elif path == "/apis/v2beta1/experiments":
                self.answer({"experiments": [{"experiment_id": "e1", "display_name": "Default"}]})
            else:
                self.refuse()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.partition("?")[0] == "/apis/v2beta1/runs":
                made.runs.append(body)
                self.answer({"run_id": f"run-{len(made.runs)}"})
            else:
                self.refuse()

        def answer(self, content: object, code: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self) -> None:
            made.unknown.append(f"{self.command} {self.path}")
            self.answer({"error": "no such endpoint"}, 404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Cluster(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
    assert made.unknown == []


def test_a_submitted_run_carries_the_graph_and_its_arguments(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submit(
        cluster.host,
        TRAIN,
        "s3://shop/dataset",
        "shop",
        ["teacher.stage_a.lr=3e-5"],
        gpus=2,
        tracking_uri="http://mlflow:5000",
    )

    assert run == "run-1"
    (sent,) = cluster.runs
    assert sent["experiment_id"] == "e1"
    assert sent["runtime_config"]["parameters"] == {
        "data": ["s3://shop/dataset"],
        "recipe": "shop",
        "overrides": ["teacher.stage_a.lr=3e-5"],
        "tracking_uri": "http://mlflow:5000",
    }
    spec = sent["pipeline_spec"]
    executors = spec["pipeline_spec"]["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {TRAIN}
    accelerator = executors["exec-pretrain"]["container"]["resources"]["accelerator"]
    assert accelerator["resourceCount"] == "2"
    assert "kubernetes" in spec["platform_spec"]["platforms"]
    # stdout is for the run's id, which a script reads
    assert capsys.readouterr().out == ""


def test_several_datasets_are_sent_as_a_list(cluster: Cluster) -> None:
    submit(cluster.host, TRAIN, ["s3://a", "s3://b"], "smoke")
    assert cluster.runs[0]["runtime_config"]["parameters"]["data"] == ["s3://a", "s3://b"]


def test_nothing_is_sent_without_a_digest(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="has no digest"):
        submit(cluster.host, "train:latest", "s3://a", "smoke")
    assert cluster.runs == []
