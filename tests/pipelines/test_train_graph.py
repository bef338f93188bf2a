"""What a cluster is told: the compiled graph, its resources and its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster import compile_pipeline

GOLDEN = Path(__file__).parent / "golden" / "train.yaml"
REGENERATE = "QUERYLIFT_WRITE_GOLDEN=1 python -m pytest tests/pipelines/test_train_graph.py"
DATA = f"registry.example/querylift/data@sha256:{'a' * 64}"
TRAIN = f"registry.example/querylift/train@sha256:{'b' * 64}"

LIGHT = {"extend-vocabulary", "register", "validate-data"}
HEAVY = {"distill", "evaluate", "finetune", "finetune-2", "pretrain"}
ON_DATA_IMAGE = {"extend-vocabulary", "validate-data"}


@dataclass(frozen=True)
class Graph:
    """The two documents of a compiled pipeline."""

    ir: Mapping[str, Any]
    platform: Mapping[str, Any]

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The steps inside the exit handler."""
        tasks: Mapping[str, Any] = self.ir["components"]["comp-exit-handler-1"]["dag"]["tasks"]
        return tasks

    @property
    def finish(self) -> Mapping[str, Any]:
        """The exit handler's own step."""
        task: Mapping[str, Any] = self.ir["root"]["dag"]["tasks"]["finish-run"]
        return task

    def container(self, step: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.ir["deploymentSpec"]["executors"][f"exec-{step}"]
        return found["container"]  # type: ignore[no-any-return]

    def kubernetes(self, step: str) -> Mapping[str, Any]:
        executors = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        return executors[f"exec-{step}"]  # type: ignore[no-any-return]


def compiled(folder: Path, image: str = f"data={DATA},train={TRAIN}", gpus: int = 0) -> Graph:
    out = folder / "train.yaml"
    compile_pipeline(out, image, gpus)
    ir, platform = yaml.safe_load_all(out.read_text())
    return Graph(ir, platform)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return compiled(tmp_path_factory.mktemp("cpu"))


@pytest.fixture(scope="module")
def gpu_graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return compiled(tmp_path_factory.mktemp("gpu"), gpus=1)


def normalised(graph: Graph) -> str:
    """The graph as YAML, less kfp's version and the steps' code, which is in ``components``."""
    ir = dict(graph.ir)
    del ir["sdkVersion"]
    executors = {
        name: {"container": {k: v for k, v in item["container"].items() if k != "command"}}
        for name, item in ir["deploymentSpec"]["executors"].items()
    }
    ir["deploymentSpec"] = {"executors": executors}
    return yaml.safe_dump_all([ir, graph.platform], sort_keys=True)


def test_the_compiled_graph_is_the_golden_one(gpu_graph: Graph) -> None:
    given = normalised(gpu_graph)
    if os.environ.get("QUERYLIFT_WRITE_GOLDEN"):
        GOLDEN.write_text(given)
    wanted = GOLDEN.read_text()
    assert given == wanted, f"the graph changed; if you meant it: {REGENERATE}"


def test_ten_steps_at_most(graph: Graph) -> None:
    # a cluster starts a driver pod for each
    assert set(graph.tasks) == LIGHT | HEAVY
    assert len(graph.ir["deploymentSpec"]["executors"]) <= 10


def test_the_run_is_finished_however_the_steps_end(graph: Graph) -> None:
    assert graph.finish["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert graph.finish["dependentTasks"] == ["exit-handler-1"]
    status = graph.finish["inputs"]["parameters"]["status"]
    assert status == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


@pytest.mark.parametrize(
    ("step", "inputs"),
    [
        ("extend-vocabulary", {"dataset": "validate-data"}),
        ("pretrain", {"dataset": "validate-data", "vocabulary": "extend-vocabulary"}),
        ("finetune", {"dataset": "validate-data", "encoder": "pretrain"}),
        (
            "finetune-2",
            {"dataset": "validate-data", "encoder": "pretrain", "guide": "finetune"},
        ),
        ("distill", {"dataset": "validate-data", "teacher": "finetune-2"}),
        (
            "evaluate",
            {
                "dataset": "validate-data",
                "dual": "finetune",
                "teacher": "finetune-2",
                "student": "distill",
            },
        ),
        (
            "register",
            {"dataset": "validate-data", "checkpoint": "distill", "evaluation": "evaluate"},
        ),
    ],
)
def test_a_step_takes_what_others_made(graph: Graph, step: str, inputs: Mapping[str, str]) -> None:
    given = graph.tasks[step]["inputs"]["artifacts"]
    assert {k: v["taskOutputArtifact"]["producerTask"] for k, v in given.items()} == inputs
    assert set(graph.tasks[step]["dependentTasks"]) == set(inputs.values())


def test_the_first_finetune_makes_the_dual_encoder_that_guides_the_teacher(graph: Graph) -> None:
    for step, model in (("finetune", "dual"), ("finetune-2", "teacher")):
        task = graph.tasks[step]
        assert task["inputs"]["parameters"]["model"]["runtimeValue"]["constant"] == model
        assert task["taskInfo"]["name"] == f"finetune-{model}"


def test_every_step_of_a_run_logs_to_the_run_s_one_job(graph: Graph) -> None:
    for task in (*graph.tasks.values(), graph.finish):
        job = task["inputs"]["parameters"]["job"]["runtimeValue"]["constant"]
        assert job == "{{$.pipeline_job_uuid}}"


@pytest.mark.parametrize("step", sorted(LIGHT | {"finish-run"}))
def test_a_light_step_asks_for_little(graph: Graph, step: str) -> None:
    resources = graph.container(step)["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == ("1", "2")
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == ("4G", "8G")
    assert graph.kubernetes(step) == {"activeDeadlineSeconds": "3600"}


@pytest.mark.parametrize("step", sorted(HEAVY))
def test_a_training_step_asks_for_more_tries_again_and_shares_memory(
    graph: Graph, step: str
) -> None:
    resources = graph.container(step)["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == ("2", "8")
    assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == ("8G", "16G")
    assert "accelerator" not in resources
    assert graph.kubernetes(step) == {
        "activeDeadlineSeconds": "86400",
        "emptyDirMounts": [
            {
                "medium": "Memory",
                "mountPath": "/dev/shm",
                "sizeLimit": "8Gi",
                "volumeName": "shm",
            }
        ],
    }
    retry = graph.tasks[step]["retryPolicy"]
    assert (retry["maxRetryCount"], retry["backoffDuration"]) == (2, "60s")
    assert retry["backoffFactor"] == 2


@pytest.mark.parametrize("step", sorted(HEAVY))
def test_with_gpus_a_training_step_asks_for_them_and_tolerates_their_nodes(
    gpu_graph: Graph, step: str
) -> None:
    accelerator = gpu_graph.container(step)["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    assert accelerator["resourceCount"] == "1"
    assert gpu_graph.kubernetes(step)["tolerations"] == [
        {"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}
    ]


@pytest.mark.parametrize("step", sorted(LIGHT | {"finish-run"}))
def test_with_gpus_a_light_step_asks_for_none(gpu_graph: Graph, step: str) -> None:
    assert "accelerator" not in gpu_graph.container(step)["resources"]
    assert "tolerations" not in gpu_graph.kubernetes(step)


def test_only_steps_without_effects_outside_are_cached(graph: Graph) -> None:
    cached = {name for name, task in graph.tasks.items() if task["cachingOptions"]}
    assert cached == (LIGHT | HEAVY) - {"register"}
    assert graph.finish["cachingOptions"] == {}


def test_every_step_runs_in_its_image_by_digest(graph: Graph) -> None:
    for step in LIGHT | HEAVY | {"finish-run"}:
        wanted = DATA if step in ON_DATA_IMAGE else TRAIN
        assert graph.container(step)["image"] == wanted
    # the image that is registered as the model's origin is the one it was made in
    image = graph.tasks["register"]["inputs"]["parameters"]["image"]
    assert image["runtimeValue"]["constant"] == TRAIN


def test_one_image_serves_all_steps(tmp_path: Path) -> None:
    graph = compiled(tmp_path, TRAIN)
    images = {e["container"]["image"] for e in graph.ir["deploymentSpec"]["executors"].values()}
    assert images == {TRAIN}


def test_no_local_image_name_is_left(tmp_path: Path) -> None:
    compiled(tmp_path)
    assert ":local" not in (tmp_path / "train.yaml").read_text()


def test_no_step_installs_anything(graph: Graph) -> None:
    for executor in graph.ir["deploymentSpec"]["executors"].values():
        assert "pip install" not in " ".join(executor["container"]["command"])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("registry.example/train:1.0", "registry.example/train:1.0: has no digest"),
        (f"{TRAIN[:-1]}", "has no digest, want NAME@sha256:<64 hex digits>"),
        (f"data={DATA},train=train:1.0", "train:1.0: has no digest"),
        (f"data={DATA}", "names data, want data, train"),
        (f"data={DATA},train={TRAIN},serve={TRAIN}", "names data, train, serve, want data, train"),
        (f"data={DATA},train={TRAIN},{TRAIN}", "want data, train"),
        (f"data={DATA},train={TRAIN},train={DATA}", "want data, train"),
        ("", "has no digest"),
    ],
)
def test_an_image_without_digest_or_place_is_refused(
    tmp_path: Path, image: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"^--image ") as caught:
        compiled(tmp_path, image)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("mine")
    with pytest.raises(FileExistsError):
        compiled(tmp_path)
    assert (tmp_path / "train.yaml").read_text() == "mine"
