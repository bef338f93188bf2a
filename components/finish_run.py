"""Step: end the MLflow run, however the others ended."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def finish_run(tracking_uri: str, job: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """See ``relevance.registry.close_run``."""
    from relevance.registry import close_run

    run = close_run(tracking_uri, job=job, succeeded=status.state == "SUCCEEDED")
    print(f"MLflow run {run}: {status.state} {status.error_message or ''}")
