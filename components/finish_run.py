"""Step: close the MLflow run and say where to look, however the others ended."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def finish_run(tracking_uri: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """See ``relevance.registry.finish_run``."""
    from relevance.registry import finish_run

    place = finish_run(tracking_uri, is_success=status.state == "SUCCEEDED")
    print(f"{status.state.lower()}; {place}")
