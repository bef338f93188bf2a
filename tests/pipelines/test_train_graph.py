"""The compiled training graph: a golden file, and what must hold of it whatever it says.

To write the golden file anew: python tests/pipelines/test_train_graph.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parent / "golden" / "train.yaml"
DATA = f"registry.example/data@sha256:{'1' * 64}"
TRAIN = f"registry.example/train@sha256:{'2' * 64}"
IMAGES = f"data={DATA},train={TRAIN}"

TRAINING = ("exec-pretrain", "exec-finetune", "exec-finetune-2", "exec-distill")
OUTSIDE = ("register", "finish-run")
"""Steps that change what is outside of the pipeline."""


def compiled(folder: Path, image: str = IMAGES, gpus: int = 1) -> tuple[dict[str, Any], Any]:
    from pipelines.cluster import compile_pipeline

    out = folder / f"train-{gpus}.yaml"
    compile_pipeline(out, image, gpus)
    graph, platform = yaml.safe_load_all(out.read_text())
    return graph, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def golden_text(graph: dict[str, Any], kubernetes: Any) -> str:
    """The graph without kfp's version and the source code that its commands carry."""
    del graph["sdkVersion"]
    for executor in graph["deploymentSpec"]["executors"].values():
        del executor["container"]["command"]
    return yaml.safe_dump_all([graph, kubernetes], sort_keys=True)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled(tmp_path_factory.mktemp("graph"))[0]


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled(tmp_path_factory.mktemp("graph"))[1]


def containers(graph: dict[str, Any]) -> dict[str, Any]:
    executors = graph["deploymentSpec"]["executors"]
    return {name: executor["container"] for name, executor in executors.items()}


def tasks(graph: dict[str, Any]) -> dict[str, Any]:
    body = graph["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return {**body, "finish-run": graph["root"]["dag"]["tasks"]["finish-run"]}


def test_the_graph_is_as_in_the_golden_file(tmp_path: Path) -> None:
    given = golden_text(*compiled(tmp_path))
    assert given == GOLDEN.read_text(), f"if meant so: python {Path(__file__).name}"


def test_there_are_at_most_ten_steps(graph: dict[str, Any]) -> None:
    names = [task["taskInfo"]["name"] for task in tasks(graph).values()]
    assert sorted(names) == [
        "distill", "evaluate", "extend-vocabulary", "finetune-dual", "finetune-teacher",
        "finish-run", "learn-terms", "pretrain", "register", "validate-data",
    ]  # fmt: skip
    assert len(names) <= 10


def test_nothing_runs_before_the_data_is_valid(graph: dict[str, Any]) -> None:
    steps = tasks(graph)
    for name, task in steps.items():
        if name not in ("validate-data", "finish-run"):
            assert "validate-data" in task["dependentTasks"], name


def test_the_last_step_runs_however_the_others_ended(graph: dict[str, Any]) -> None:
    finish = tasks(graph)["finish-run"]
    assert finish["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert finish["dependentTasks"] == ["exit-handler-1"]


def test_images_are_by_digest_and_an_image_an_extra(graph: dict[str, Any]) -> None:
    images = {name: container["image"] for name, container in containers(graph).items()}
    of_data = {name for name, image in images.items() if image == DATA}
    assert of_data == {"exec-validate-data", "exec-extend-vocabulary"}
    assert {image for name, image in images.items() if name not in of_data} == {TRAIN}
    recorded = tasks(graph)["register"]["inputs"]["parameters"]["image"]
    assert recorded["runtimeValue"]["constant"] == TRAIN


def test_one_image_may_serve_all_steps(tmp_path: Path) -> None:
    graph, _ = compiled(tmp_path, image=TRAIN)
    assert {container["image"] for container in containers(graph).values()} == {TRAIN}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("repo/train:latest", "--image repo/train:latest: has no digest, want NAME@sha256:<64"),
        (f"repo/train@sha256:{'1' * 63}", "has no digest"),
        ("", "--image : has no digest"),
        (f"data={DATA}", "names data, want data, train"),
        (f"data={DATA},serve={TRAIN}", "names data, serve, want data, train"),
        (f"data=repo/data:1,train={TRAIN}", "--image repo/data:1: has no digest"),
    ],
)
def test_an_image_without_digest_is_refused(image: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(tmp_path, image=image)
    assert list(tmp_path.iterdir()) == []


def test_training_asks_for_gpus_tolerates_their_taint_and_has_shared_memory(
    graph: dict[str, Any], kubernetes: dict[str, Any]
) -> None:
    for name, container in containers(graph).items():
        accelerator = container.get("resources", {}).get("accelerator")
        if name in TRAINING:
            assert accelerator["resourceType"] == "nvidia.com/gpu"
            assert accelerator["resourceCount"] == "1"
            assert kubernetes[name]["tolerations"] == [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            ]
            (memory,) = kubernetes[name]["emptyDirMounts"]
            assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")
        else:
            assert accelerator is None
            assert "tolerations" not in kubernetes[name]


def test_without_gpus_nothing_asks_for_one(tmp_path: Path) -> None:
    graph, kubernetes = compiled(tmp_path, gpus=0)
    assert "nvidia" not in yaml.safe_dump([graph, kubernetes])


def test_every_step_has_resources_and_a_time_limit(
    graph: dict[str, Any], kubernetes: dict[str, Any]
) -> None:
    for name, container in containers(graph).items():
        resources = container["resources"]
        for kind in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit"):
            assert resources[f"resource{kind}"], (name, kind)
        assert int(kubernetes[name]["activeDeadlineSeconds"]) > 0


def test_steps_are_tried_again_but_not_those_that_change_what_is_outside(
    graph: dict[str, Any],
) -> None:
    for name, task in tasks(graph).items():
        if name in OUTSIDE:
            assert "retryPolicy" not in task
            assert not task["cachingOptions"].get("enableCache")
        else:
            assert task["retryPolicy"]["maxRetryCount"] == 2
            assert task["retryPolicy"]["backoffDuration"] == "60s"
            assert task["cachingOptions"]["enableCache"]


def test_the_run_id_comes_from_the_pod_so_that_the_cache_holds(
    graph: dict[str, Any], kubernetes: dict[str, Any]
) -> None:
    assert "pipeline_job_uuid" not in yaml.safe_dump(graph)
    for executor in kubernetes.values():
        assert executor["fieldPathAsEnv"] == [
            {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}
        ]


def test_reports_and_metrics_are_of_types_that_kubeflow_shows(graph: dict[str, Any]) -> None:
    kinds = {
        name: {
            artifact["artifactType"]["schemaTitle"].removeprefix("system.")
            for artifact in component["outputDefinitions"]["artifacts"].values()
        }
        for name, component in graph["components"].items()
        if "outputDefinitions" in component
    }
    assert "HTML" in kinds["comp-validate-data"]
    assert "HTML" in kinds["comp-evaluate"]
    assert "Markdown" in kinds["comp-extend-vocabulary"]
    assert all("Metrics" in shown for shown in kinds.values())


def test_no_step_installs_anything(graph: dict[str, Any]) -> None:
    for container in containers(graph).values():
        assert "pip install" not in " ".join(container["command"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(golden_text(*compiled(Path(scratch))))
