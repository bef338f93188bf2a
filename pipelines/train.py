"""The training graph: from datasets to a registered challenger."""

from functools import partial

from kfp import dsl, kubernetes

from components import _image
from components.distill import distill
from components.evaluate import evaluate
from components.extend_vocabulary import extend_vocabulary
from components.finetune import finetune
from components.finish_run import finish_run
from components.learn_terms import learn_terms
from components.pretrain import pretrain
from components.register import register
from components.validate_data import validate_data

_HOUR = 60 * 60
_ACCELERATOR = "nvidia.com/gpu"
_QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def train_pipeline(*, gpus: int = 0, retries: int = 2) -> dsl.base_component.BaseComponent:
    """The graph; training steps ask for ``gpus``, and a step is tried ``retries`` times more.

    ``register`` and ``finish_run`` change what is outside: never cached, never tried again.
    """
    light = partial(_light, retries=retries)
    heavy = partial(_heavy, gpus=gpus, retries=retries)

    @dsl.pipeline(name="train", description="Datasets to a registered relevance model")
    def train(
        data: list,
        recipe: str,
        overrides: list = [],  # noqa: B006 - kfp reads the default
        tracking_uri: str = "",
        state: str = "",
    ) -> None:
        shared = {"recipe": recipe, "overrides": overrides, "tracking_uri": tracking_uri}
        finish = _light(finish_run(tracking_uri=tracking_uri)).set_caching_options(False)
        with dsl.ExitHandler(finish, name="training"):
            dataset = light(validate_data(data=data, **shared)).outputs["dataset"]
            words = light(extend_vocabulary(dataset=dataset, **shared))
            vocabulary = words.outputs["vocabulary"]
            terms = light(learn_terms(dataset=dataset, **shared)).outputs["terms"]
            encoder = heavy(
                pretrain(dataset=dataset, vocabulary=vocabulary, state=state, **shared)
            ).outputs["encoder"]
            dual = heavy(
                finetune(dataset=dataset, encoder=encoder, model="dual", state=state, **shared)
            ).set_display_name("finetune-dual")
            teacher = heavy(
                finetune(
                    dataset=dataset,
                    encoder=encoder,
                    guide=dual.outputs["checkpoint"],
                    terms=terms,
                    model="teacher",
                    state=state,
                    **shared,
                )
            ).set_display_name("finetune-teacher")
            student = heavy(
                distill(
                    dataset=dataset,
                    teacher=teacher.outputs["checkpoint"],
                    vocabulary=vocabulary,
                    terms=terms,
                    state=state,
                    **shared,
                )
            ).outputs["student"]
            evaluation = _heavy(
                evaluate(
                    dataset=dataset,
                    dual=dual.outputs["checkpoint"],
                    teacher=teacher.outputs["checkpoint"],
                    student=student,
                    **shared,
                ),
                gpus=0,
                retries=retries,
            ).outputs["evaluation"]
            _light(
                register(
                    dataset=dataset,
                    checkpoint=student,
                    evaluation=evaluation,
                    image=_image.TRAIN,
                    **shared,
                )
            ).set_caching_options(False)

    return train


def _light(task: dsl.PipelineTask, *, retries: int = 0) -> dsl.PipelineTask:
    task.set_cpu_request("1").set_cpu_limit("2")
    task.set_memory_request("4G").set_memory_limit("8G")
    kubernetes.set_timeout(task, _HOUR)
    return _common(task, retries)


def _heavy(task: dsl.PipelineTask, *, gpus: int, retries: int) -> dsl.PipelineTask:
    task.set_cpu_request("2").set_cpu_limit("8")
    task.set_memory_request("8G").set_memory_limit("16G")
    kubernetes.set_timeout(task, 24 * _HOUR)
    # collectives share memory there, and a container's default is 64 MB
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit="8Gi"
    )
    if gpus:
        task.set_accelerator_type(_ACCELERATOR).set_accelerator_limit(gpus)
        kubernetes.add_toleration(task, key=_ACCELERATOR, operator="Exists", effect="NoSchedule")
    return _common(task, retries)


def _common(task: dsl.PipelineTask, retries: int) -> dsl.PipelineTask:
    if retries:
        task.set_retry(retries, backoff_duration="60s", backoff_factor=2.0)
    for name, value in _QUIET.items():
        task.set_env_variable(name, value)
    # by a label of the pod, not by kfp's placeholder: that is an input, and would defeat the cache
    return kubernetes.use_field_path_as_env(
        task, env_name="KFP_RUN_ID", field_path="metadata.labels['pipeline/runid']"
    )
