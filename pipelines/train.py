"""The training graph: from datasets to a registered challenger."""

from __future__ import annotations

from kfp import dsl, kubernetes

from components import _image
from components.distill import distill
from components.evaluate import evaluate
from components.extend_vocabulary import extend_vocabulary
from components.finetune import finetune
from components.finish_run import finish_run
from components.pretrain import pretrain
from components.register import register
from components.validate_data import validate_data

JOB = dsl.PIPELINE_JOB_ID_PLACEHOLDER
_ACCELERATOR = "nvidia.com/gpu"


def train_pipeline(*, gpus: int = 0, retries: int = 2) -> object:
    """The graph, for training steps that ask for ``gpus`` and try ``retries`` times more."""

    @dsl.pipeline(name="train", description="Datasets to a registered relevance model")
    def train(
        data: list,
        recipe: str,
        overrides: list = [],  # noqa: B006 - kfp reads the default
        tracking_uri: str = "",
        state: str = "",
    ) -> None:
        shared = {
            "recipe": recipe,
            "overrides": overrides,
            "tracking_uri": tracking_uri,
            "job": JOB,
        }
        finish = _light(finish_run(tracking_uri=tracking_uri, job=JOB))
        finish.set_caching_options(False)
        with dsl.ExitHandler(finish, name="training"):
            checked = _light(validate_data(data=data, **shared), memory="4G")
            dataset = checked.outputs["dataset"]
            words = _light(extend_vocabulary(dataset=dataset, **shared), memory="4G")
            encoder = _heavy(
                pretrain(
                    dataset=dataset, vocabulary=words.outputs["vocabulary"], state=state, **shared
                )
            ).outputs["encoder"]
            dual = _heavy(
                finetune(dataset=dataset, encoder=encoder, model="dual", state=state, **shared)
            ).set_display_name("finetune-dual")
            teacher = _heavy(
                finetune(
                    dataset=dataset,
                    encoder=encoder,
                    guide=dual.outputs["checkpoint"],
                    model="teacher",
                    state=state,
                    **shared,
                )
            ).set_display_name("finetune-teacher")
            student = _heavy(
                distill(
                    dataset=dataset, teacher=teacher.outputs["checkpoint"], state=state, **shared
                )
            )
            judged = _heavy(
                evaluate(
                    dataset=dataset,
                    dual=dual.outputs["checkpoint"],
                    teacher=teacher.outputs["checkpoint"],
                    student=student.outputs["student"],
                    **shared,
                )
            )
            registered = _light(
                register(
                    dataset=dataset,
                    checkpoint=student.outputs["student"],
                    evaluation=judged.outputs["evaluation"],
                    image=_image.TRAIN,
                    **shared,
                ),
                memory="4G",
            )
            registered.set_caching_options(False)

    def _light(task: dsl.PipelineTask, memory: str = "1G") -> dsl.PipelineTask:
        task.set_cpu_request("1").set_cpu_limit("2")
        task.set_memory_request(memory).set_memory_limit(memory)
        kubernetes.set_timeout(task, 60 * 60)
        return task

    def _heavy(task: dsl.PipelineTask) -> dsl.PipelineTask:
        task.set_cpu_request("2").set_cpu_limit("8")
        task.set_memory_request("8G").set_memory_limit("16G")
        kubernetes.set_timeout(task, 24 * 60 * 60)
        # data loaders and collectives share memory there, and the default is 64 MB
        kubernetes.empty_dir_mount(
            task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="8Gi"
        )
        if retries:
            task.set_retry(retries, backoff_duration="60s", backoff_factor=2.0)
        if gpus:
            task.set_accelerator_type(_ACCELERATOR).set_accelerator_limit(gpus)
            kubernetes.add_toleration(
                task, key=_ACCELERATOR, operator="Exists", effect="NoSchedule"
            )
        return task

    return train
