"""Step: the teacher's judgment in a small student."""

from kfp import dsl

from components import _image


@dsl.component(base_image=_image.TRAIN, install_kfp_package=False)
def distill(
    dataset: dsl.Input[dsl.Dataset],
    teacher: dsl.Input[dsl.Model],
    recipe: str,
    overrides: list,
    tracking_uri: str,
    job: str,
    state: str,
    student: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """See ``relevance.training.distill.distill``."""
    from pathlib import Path

    from relevance.recipes import recipe_config
    from relevance.registry import log_step
    from relevance.training.distill import distill

    config = recipe_config(recipe, overrides)
    numbers = distill(
        config.distill,
        Path(dataset.path),
        Path(teacher.path),
        Path(student.path),
        seed=config.seed,
        state=Path(state) / "distill" if state else None,
    )
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    log_step(tracking_uri, job=job, step="distill", settings=config.distill, metrics=numbers)
